"""`ctrun`: finds the verb, parses its flags, runs it, and says what went wrong in the shape that engines parse."""

import os
import sys

from ctr_common import trace
from ctr_common.errors import CtrError, UsageError
from ctr_common.log import DEBUG, ERROR, STDERR, Log, encode, write_all
from ctr_supervisor.cli import interrupts, output, parser, surroundings
from ctr_supervisor.cli.surroundings import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings
    from ctr_supervisor.cli.verb import Verb
    from ctr_supervisor.process.parent import Parent

# In the order of the help.
VERBS = (
    "call",
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "explain",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "update",
    "features",
)
HELP_VERBS = ("help", "h")
# Those that make a container, which Ctrl-C must not leave half made.
CREATING = ("create", "run")

STATUS_NO_SUCH_VERB = 3
STATUS_INTERRUPTED = 130
STATUS_BROKEN_PIPE = 141


class _Command:
    """One command line on its way, and what an error needs to know of it at each moment.

    Args:
        parent: whose children container processes become; None for this process.

    Attributes:
        log: where errors go.
        debug: --debug was given.
        failure: what stands before the message of an error.
        status: exit status of an error.
    """

    def __init__(self, parent: "Parent | None") -> None:
        self.parent = parent
        self.log = Log()
        self.debug = False
        self.failure = ""
        self.status = 1

    def run(self, arguments: "Sequence[str]") -> int:
        """Finds the verb and runs it; returns the exit status."""
        try:
            given = parser.parse(arguments, surroundings.FLAGS)
        except UsageError as error:
            # Two forms of one flag are told without the words "Incorrect Usage".
            prefix, end = ("", "\n") if error.message.startswith("Cannot") else ("Incorrect Usage. ", "\n\n")
            _show_program_help(f"{prefix}{error}{end}")
            raise
        if given.boolean("help"):
            return _show_program_help()
        if given.boolean("version"):
            from ctr_supervisor.cli import version

            return version.show()
        context = surroundings.from_arguments(given, self.parent)
        self.log = context.log
        self.debug = context.debug
        name = given.rest[0] if given.rest else ""
        if given.string("trace"):
            _start_trace(given.string("trace"), since_start=self.parent is None)
        if name in VERBS:
            return self.run_verb(context, name, given.rest[1:])
        if name in HELP_VERBS:
            topic = given.rest[1] if len(given.rest) > 1 else ""
            if topic in VERBS:
                return _show_verb_help(load(topic)[0])
            name = "" if topic in HELP_VERBS else topic
        if name:
            self.status = STATUS_NO_SUCH_VERB
            raise UsageError(f"No help topic for '{name}'\n")
        return _show_program_help()

    def run_verb(self, context: "Surroundings", name: str, arguments: "Sequence[str]") -> int:
        """Runs one verb; returns the exit status."""
        (interrupts.hold if name in CREATING else interrupts.allow)()
        with trace.span(f"import {name}"):
            verb, run = load(name)
        try:
            given = parser.parse(arguments, verb.flags, flags_first=verb.flags_first)
        except UsageError as error:
            _show_verb_help(verb, f"Incorrect Usage: {error}\n\n")
            raise
        if given.boolean("help"):
            return _show_verb_help(verb)
        complaint = count_complaint(verb, len(given.rest))
        if complaint:
            _show_verb_help(verb, "Incorrect Usage.\n\n")
            raise UsageError(complaint)
        self.failure = verb.failure
        self.status = verb.failure_status
        with trace.span(name):
            return run(context, given)

    def fail(self, message: str, hint: str = "") -> int:
        """Reports an error; returns the exit status."""
        report(self.log, self.failure + message, hint)
        return self.status


def main(arguments: "Sequence[str] | None" = None, parent: "Parent | None" = None) -> int:
    """Runs one command line.

    Args:
        arguments: without the name of the program; None for the ones that this process was started with.
        parent: whose children container processes become; None for this process.

    Returns:
        the exit status.
    """
    open_standard_fds()
    if parent is None:
        interrupts.settle()
    command = _Command(parent)
    try:
        return command.run(sys.argv[1:] if arguments is None else arguments)
    except output.ReaderGone:
        return STATUS_BROKEN_PIPE
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    except CtrError as error:
        # What it waited for was ended by the same Ctrl-C.
        return STATUS_INTERRUPTED if interrupts.waits() else command.fail(str(error), error.hint)
    except OSError as error:
        return command.fail(str(CtrError.from_os_error(error)))
    except Exception as error:
        if command.debug:
            import traceback

            for line in traceback.format_exc().splitlines():
                command.log.write(DEBUG, line)
        hint = f"this is a bug in {PROGRAM}; --debug shows where"
        return command.fail(f"internal error: {type(error).__name__}: {error}", hint)
    finally:
        if trace.recorder is not None:
            trace.recorder.finish()


def _start_trace(path: str, since_start: bool) -> None:
    from ctr_common import trace_recorder

    try:
        trace_recorder.start(path, since_start)
    except OSError as error:
        raise CtrError(f"open {path}", errno=error.errno or 0) from None


def open_standard_fds() -> None:
    """Fills gaps among stdin, stdout and stderr: a file opened later must not take such a number and be written to."""
    for fd in range(STDERR + 1):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one, since those below are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def report(log: Log, message: str, hint: str = "") -> None:
    """Writes an error to the log and, when that is a file, also plainly to standard error.

    Args:
        log: the log.
        message: the error.
        hint: for a human reader: shown on a terminal only, since engines parse the rest.
    """
    log.write(ERROR, message)
    lines = ""
    if log.is_file:
        lines = message if message.endswith("\n") else message + "\n"
    if hint and os.isatty(STDERR):
        lines += f"hint: {hint}\n"
    try:
        write_all(STDERR, encode(lines))
    except OSError:
        pass


def load(name: str) -> "tuple[Verb, Callable[[Surroundings, Arguments], int]]":
    """The verb's description and what runs it; its module is imported only now.

    Args:
        name: one of VERBS.
    """
    module = __import__(f"ctr_supervisor.cli.{name}", fromlist=["VERB", "run"])
    return module.VERB, module.run


def count_complaint(verb: "Verb", count: int) -> str:
    """What is wrong with the number of arguments of a verb, "" if nothing is.

    Args:
        verb: the verb.
        count: how many arguments were given.
    """
    if verb.minimum == verb.maximum:
        if count != verb.minimum:
            return f'{PROGRAM}: "{verb.name}" requires exactly {verb.minimum} argument(s)'
    elif count < verb.minimum:
        return f'{PROGRAM}: "{verb.name}" requires a minimum of {verb.minimum} argument(s)'
    elif verb.maximum is not None and count > verb.maximum:
        return f'{PROGRAM}: "{verb.name}" requires a maximum of {verb.maximum} argument(s)'
    return ""


def _show_program_help(before: str = "") -> int:
    from ctr_supervisor.cli import help as help_text

    return help_text.show(before + help_text.program([load(name)[0] for name in VERBS]))


def _show_verb_help(verb: "Verb", before: str = "") -> int:
    from ctr_supervisor.cli import help as help_text

    return help_text.show(before + help_text.verb(verb))
