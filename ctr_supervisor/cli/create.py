"""`ctrun create`."""

from ctr_supervisor.cli import creation, interrupts
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "create",
    "create a container",
    arguments="<container-id>",
    description="""\
Makes the container of a bundle, up to the point where its process would
start; "ctrun start" then starts it. What the process is, the property "args"
in config.json says; "ctrun spec" writes a config.json to begin with.

"<container-id>" is a name of your choice, unique on this host.""",
    flags=(
        creation.BUNDLE,
        creation.CONSOLE_SOCKET,
        creation.PIDFD_SOCKET,
        creation.PID_FILE,
        creation.NO_PIVOT,
        creation.NO_NEW_KEYRING,
        creation.PRESERVE_FDS,
    ),
    minimum=1,
    maximum=1,
    failure="ctrun create failed: ",
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Creates the container."""
    runtime, bundle, options = creation.prepare(surroundings, arguments, detach=True)
    from ctr_supervisor.engine import create

    create.create(runtime, arguments.rest[0], bundle, options)
    if interrupts.waits():
        # It came too late to make the creation fail.
        from ctr_supervisor.engine import delete

        delete.delete(runtime, arguments.rest[0], force=True)
        raise KeyboardInterrupt
    return 0
