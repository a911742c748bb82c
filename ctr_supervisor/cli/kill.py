"""`ctrun kill`."""

from ctr_common.errors import UsageError
from ctr_common.log import quote
from ctr_supervisor.cli.parser import BOOL, Flag, parse_int
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "kill",
    "send a signal to the init process of a container",
    arguments="<container-id> [signal]",
    description="""\
The signal is a name, with or without "SIG", in large or small letters, or a
number; without one, SIGTERM is sent.

    # ctrun kill web KILL""",
    flags=(Flag("all", "send it to every process of the container", BOOL, "a"),),
    minimum=1,
    maximum=2,
)

DEFAULT_SIGNAL = "SIGTERM"

# signal(7), numbers of x86, Arm and most others; the names that runc takes.
SIGNALS = {
    "ABRT": 6,
    "ALRM": 14,
    "BUS": 7,
    "CHLD": 17,
    "CONT": 18,
    "FPE": 8,
    "HUP": 1,
    "ILL": 4,
    "INT": 2,
    "IO": 29,
    "KILL": 9,
    "PIPE": 13,
    "PROF": 27,
    "PWR": 30,
    "QUIT": 3,
    "SEGV": 11,
    "STKFLT": 16,
    "STOP": 19,
    "SYS": 31,
    "TERM": 15,
    "TRAP": 5,
    "TSTP": 20,
    "TTIN": 21,
    "TTOU": 22,
    "URG": 23,
    "USR1": 10,
    "USR2": 12,
    "VTALRM": 26,
    "WINCH": 28,
    "XCPU": 24,
    "XFSZ": 25,
}


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Sends the signal."""
    from ctr_supervisor.engine import container, kill

    container_id = arguments.rest[0]
    runtime = surroundings.runtime()
    # A container that does not exist is told before a signal that does not: engines look for the former.
    container.load(runtime, container_id)
    name = arguments.rest[1] if len(arguments.rest) > 1 else ""
    kill.kill(runtime, container_id, parse_signal(name or DEFAULT_SIGNAL), all=arguments.boolean("all"))
    return 0


def parse_signal(text: str) -> int:
    """Number of a signal.

    Args:
        text: its number, or its name in any case, with or without SIG.

    Raises:
        UsageError: there is none of that name. A number is left for the kernel to judge.
    """
    try:
        return parse_int(text)
    except ValueError:
        pass
    try:
        return SIGNALS[text.upper().removeprefix("SIG")]
    except KeyError:
        raise UsageError(f"unknown signal {quote(text)}") from None
