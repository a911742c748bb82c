"""`ctrun resume`."""

from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "resume",
    "let the processes of a paused container go on",
    arguments="<container-id>",
    description="""\
Takes back "ctrun pause".""",
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Resumes the container."""
    from ctr_supervisor.engine import pause

    pause.resume(surroundings.runtime(), arguments.rest[0])
    return 0
