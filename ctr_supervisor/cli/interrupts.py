"""What Ctrl-C does to a command, and what a caller may have done to signals before it.

The launcher leaves SIGINT to the kernel, which ends the process without a word: an exception among the imports would
be a traceback, and one in a half made container would leave half of it. Each verb then chooses. Where something else
is the launcher, as in a supervisor's job or a test, SIGINT is not ours and nothing here touches it; a job has another
signal that tells of its client's end.
"""

import _signal  # type: ignore[import-not-found]  # builtin; signal itself takes 5 ms for its enums

SIGINT, SIGCHLD = 2, 17

_number = SIGINT


def settle() -> None:
    """Lets children be waited for: whoever starts a command with SIGCHLD ignored has it ignored there too (wait(2))."""
    if _signal.getsignal(SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(SIGCHLD, _signal.SIG_DFL)


def come_by(number: int) -> None:
    """Has another signal than Ctrl-C's tell that nobody waits for the command any more."""
    global _number
    _number = number


def allow() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, for a verb that can be left anywhere."""
    if _number == SIGINT and _signal.getsignal(SIGINT) == _signal.SIG_DFL:
        _signal.signal(SIGINT, _signal.default_int_handler)


def hold() -> None:
    """From now on Ctrl-C waits until somebody asks for it, for a verb that makes something.

    It comes from a terminal, so it ends what a creation waits for: ctr-init, the setup worker, hooks. The creation
    then fails, and undoes what it did.
    """
    if _signal.getsignal(_number) == _signal.SIG_DFL:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_number,))


def release() -> None:
    """Takes `hold` back; what has come meanwhile ends this process now."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_number,))


def waits() -> bool:
    """Whether there was a Ctrl-C that `hold` has kept away."""
    return _signal.getsignal(_number) == _signal.SIG_DFL and _number in _signal.sigpending()
