"""What the command line knows about a verb."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Flag


class Verb:
    """Describes one verb; its module has a `run(surroundings, arguments)` that returns the exit status.

    Args:
        name: what the user types.
        summary: one line, lower case.
        arguments: the arguments in the usage line; a line for each way to call it.
        description: paragraphs for the help, lines of at most 80 columns.
        flags: its flags.
        minimum: least number of arguments.
        maximum: largest number of arguments, None for any.
        flags_first: everything after the first argument belongs to another command.
        failure: what stands before the message when it fails.
        failure_status: exit status when it fails.
    """

    __slots__ = (
        "arguments",
        "description",
        "failure",
        "failure_status",
        "flags",
        "flags_first",
        "maximum",
        "minimum",
        "name",
        "summary",
    )

    def __init__(
        self,
        name: str,
        summary: str,
        *,
        arguments: str = "",
        description: str = "",
        flags: "tuple[Flag, ...]" = (),
        minimum: int = 0,
        maximum: "int | None" = 0,
        flags_first: bool = False,
        failure: str = "",
        failure_status: int = 1,
    ) -> None:
        self.name = name
        self.summary = summary
        self.arguments = arguments
        self.description = description
        self.flags = flags
        self.minimum = minimum
        self.maximum = maximum
        self.flags_first = flags_first
        self.failure = failure
        self.failure_status = failure_status
