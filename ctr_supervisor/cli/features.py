"""`ctrun features`."""

from ctr_supervisor.cli import output
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "features",
    "show what this build can do",
    description="""\
Prints the features structure of the OCI runtime specification as JSON.""",
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the features."""
    from ctr_supervisor.engine import features

    output.write_json(features.features(), "    ")
    return 0
