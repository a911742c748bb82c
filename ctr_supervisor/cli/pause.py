"""`ctrun pause`."""

from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "pause",
    "suspend all processes of a container",
    arguments="<container-id>",
    description="""\
Freezes the container's cgroup, until "ctrun resume". "ctrun list" shows
which containers are paused.""",
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Pauses the container."""
    from ctr_supervisor.engine import pause

    pause.pause(surroundings.runtime(), arguments.rest[0])
    return 0
