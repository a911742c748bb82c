"""Where the time of a command goes (`--trace`): spans that cost next to nothing while nobody records them.

The recorder itself is in ctr_common/trace_recorder.py and imported only where somebody asks for it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.trace_recorder import Recorder, Span

# Who records in this process; None: nobody.
recorder: "Recorder | None" = None


class Nothing:
    """A span that nobody records."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


NOTHING = Nothing()


def span(name: str, detail: str = "") -> "Span | Nothing":
    """A context manager around one step.

    Args:
        name: of the step.
        detail: what the step is about.
    """
    return NOTHING if recorder is None else recorder.span(name, detail)
