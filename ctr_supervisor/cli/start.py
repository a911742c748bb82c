"""`ctrun start`."""

from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "start",
    "start the process of a created container",
    arguments="<container-id>",
    description="""\
Lets a container that "ctrun create" made execute its process.""",
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Starts the container."""
    from ctr_supervisor.engine import start

    start.start(surroundings.runtime(), arguments.rest[0])
    return 0
