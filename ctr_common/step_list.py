"""Step lists as text: what would be done, in order, and which place of the configuration asks for it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def text(steps: "Iterable[Mapping[str, str]]") -> str:
    """A numbered line for each step.

    Args:
        steps: maps of `step`, `detail`, and where they are known `json_path` and `process`: each process that acts
            gets a heading.

    Returns:
        Lines with their ends.
    """
    out = []
    acting = ""
    for number, entry in enumerate(steps, 1):
        process = entry.get("process", "")
        if process != acting:
            out.append(f"{process}\n")
            acting = process
        detail = f": {entry['detail']}" if entry["detail"] else ""
        place = f"  [{entry['json_path']}]" if "json_path" in entry else ""
        out.append(f"{number:3} {entry['step']}{detail}{place}\n")
    return "".join(out)
