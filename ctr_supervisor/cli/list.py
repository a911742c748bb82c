"""`ctrun list`."""

from ctr_common.errors import UsageError
from ctr_supervisor.cli import output
from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "list",
    "list the containers of a root",
    description="""\
Lists the containers that were made with the same global option "--root".

    # ctrun list
    # ctrun --root /run/elsewhere list""",
    flags=(
        Flag("format", "format of the list: table or json", short="f", default="table"),
        Flag("quiet", "print the ids only", BOOL, "q"),
    ),
)

FORMATS = ("table", "json")
COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
# Those of runc, which scripts cut at: a column is at least 12 wide, and 3 wider than its longest cell.
WIDTH_MINIMUM = 12
PADDING = 3


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the list."""
    from ctr_supervisor.engine import list as engine

    containers = engine.list_containers(surroundings.runtime())
    output.write(render(containers, arguments.boolean("quiet"), arguments.string("format")))
    return 0


def render(containers: "list[dict[str, Any]]", quiet: bool, form: str) -> str:
    """The containers as text.

    Args:
        containers: as from the engine.
        quiet: ids only.
        form: one of FORMATS.

    Raises:
        UsageError: it is another.
    """
    if quiet:
        return "".join(f"{container['id']}\n" for container in containers)
    if form == "table":
        return table(containers)
    if form == "json":
        return output.as_json(containers or None)
    raise UsageError("invalid format option")


def table(containers: "list[dict[str, Any]]") -> str:
    """The containers as a table with a heading.

    Args:
        containers: as from the engine.
    """
    rows = [COLUMNS, *(tuple(str(container[name.lower()]) for name in COLUMNS) for container in containers)]
    widths = [max(WIDTH_MINIMUM, PADDING + max(map(len, column))) for column in zip(*rows, strict=True)]
    # The last column ends its line without padding.
    widths[-1] = 0
    return "".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + "\n" for row in rows)
