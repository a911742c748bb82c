"""`ctrun delete`."""

from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "delete",
    "remove what a stopped container holds",
    arguments="<container-id>",
    description="""\
Removes the cgroups and the state of a container whose process has ended, or
that was created and not started.""",
    flags=(Flag("force", "kill the container first if it runs; it may also be gone already", BOOL, "f"),),
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Deletes the container."""
    from ctr_supervisor.engine import delete

    delete.delete(surroundings.runtime(), arguments.rest[0], force=arguments.boolean("force"))
    return 0
