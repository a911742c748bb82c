"""`ctrun`: finds the verb, parses its flags, runs it, and says what went wrong in the shape that engines parse."""

import os
import sys

from ctr_common.errors import CtrError, NotSupported, UsageError
from ctr_common.log import DEBUG, ERROR, STDERR, Log, encode, write_all
from ctr_supervisor.cli import output, parser, surroundings
from ctr_supervisor.cli.surroundings import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings
    from ctr_supervisor.cli.verb import Verb

# In the order of the help.
VERBS = (
    "create",
    "delete",
    "exec",
    "kill",
    "list",
    "pause",
    "ps",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "features",
)
LATER = ("checkpoint", "events", "restore", "update")

STATUS_NO_SUCH_VERB = 3
STATUS_INTERRUPTED = 130
STATUS_BROKEN_PIPE = 141


class _Failure(Exception):
    """The end of the command: what to tell the user, and the exit status."""

    def __init__(self, message: str, status: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.hint = hint


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Runs one command line.

    Args:
        arguments: without the name of the program; None for the ones that this process was started with.

    Returns:
        the exit status.
    """
    log = Log()

    def take_log(configured: Log) -> None:
        nonlocal log
        log = configured

    try:
        return _main(sys.argv[1:] if arguments is None else arguments, take_log)
    except _Failure as failure:
        report(log, failure.message, failure.hint)
        return failure.status
    except output.ReaderGone:
        return STATUS_BROKEN_PIPE
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED


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


def _main(arguments: "Sequence[str]", take_log: "Callable[[Log], None]") -> int:
    try:
        globals_ = parser.parse(arguments, surroundings.FLAGS)
    except UsageError as error:
        # Two forms of one flag are told without the words "Incorrect Usage".
        prefix = "" if error.message.startswith("Cannot") else "Incorrect Usage. "
        _show_program_help(f"{prefix}{error}\n" + ("\n" if prefix else ""))
        raise _Failure(error.message) from None
    if globals_.boolean("help"):
        return _show_program_help()
    if globals_.boolean("version"):
        from ctr_supervisor.cli import version

        return version.show()
    try:
        context = surroundings.from_arguments(globals_)
    except CtrError as error:
        raise _Failure(str(error), hint=error.hint) from None
    take_log(context.log)
    name = globals_.rest[0] if globals_.rest else ""
    if name in VERBS:
        return _run(context, name, globals_.rest[1:])
    if name in LATER:
        raise _Failure(str(NotSupported(f'{PROGRAM}: "{name}" is not in this release')))
    if name in ("help", "h"):
        topic = globals_.rest[1] if len(globals_.rest) > 1 else ""
        if topic in VERBS:
            return _show_verb_help(load(topic)[0])
        name = topic if topic not in ("help", "h") else ""
    if name == "":
        return _show_program_help()
    raise _Failure(f"No help topic for '{name}'\n", STATUS_NO_SUCH_VERB)


def _run(context: "Surroundings", name: str, arguments: "list[str]") -> int:
    verb, run = load(name)
    try:
        parsed = parser.parse(arguments, verb.flags, flags_first=verb.flags_first)
    except UsageError as error:
        _show_verb_help(verb, f"Incorrect Usage: {error}\n\n")
        raise _Failure(error.message) from None
    if parsed.boolean("help"):
        return _show_verb_help(verb)
    complaint = count_complaint(verb, len(parsed.rest))
    if complaint:
        _show_verb_help(verb, "Incorrect Usage.\n\n")
        raise _Failure(complaint)
    try:
        return run(context, parsed)
    except CtrError as error:
        raise _Failure(verb.failure + str(error), verb.failure_status, error.hint) from None
    except output.ReaderGone:
        raise
    except OSError as error:
        raise _Failure(verb.failure + str(CtrError.from_os_error(error)), verb.failure_status) from None
    except Exception as error:
        if context.debug:
            import traceback

            for line in traceback.format_exc().splitlines():
                context.log.write(DEBUG, line)
        hint = f"this is a bug in {PROGRAM}; --debug shows where"
        message = f"{verb.failure}internal error: {type(error).__name__}: {error}"
        raise _Failure(message, verb.failure_status, hint) from None


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
