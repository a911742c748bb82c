"""`ctrun state`."""

from ctr_supervisor.cli import output
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "state",
    "print the state of a container",
    arguments="<container-id>",
    description="""\
Prints the state of a container as JSON: its status, process, bundle, root
file system, time of creation and annotations.""",
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the container's state."""
    from ctr_supervisor.engine import state

    output.write_json(state.state(surroundings.runtime(), arguments.rest[0]), "  ", end="")
    return 0
