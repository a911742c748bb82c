"""Commands run by tests: always with a limit, and with all that they printed in the failure."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.slowness import SLOWNESS


class Result:
    """How a command ended.

    `out` and `err` are its whole stdout and stderr; `code` its exit status, negative for a signal.
    """

    def __init__(self, argv: Sequence[str], code: int, out: str, err: str) -> None:
        self.argv = list(argv)
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"{' '.join(self.argv)}\nexit status {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}"

    def ok(self) -> Result:
        """This result; fails the test unless the command succeeded."""
        __tracebackhide__ = True
        assert self.code == 0, repr(self)
        return self

    @property
    def text(self) -> str:
        """Stdout of a command that succeeded, without white space around it."""
        __tracebackhide__ = True
        return self.ok().out.strip()

    @property
    def lines(self) -> list[str]:
        """Stdout of a command that succeeded, line by line."""
        __tracebackhide__ = True
        return self.ok().out.splitlines()


@contextmanager
def started(*argv: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command under way, with text as its streams; it is killed at the end if it has not ended, and waited for.

    Args:
        argv: the command.
        options: of Popen.
    """
    with subprocess.Popen([str(word) for word in argv], text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def run(
    *argv: str | Path,
    timeout: float = 30,
    stdin: str | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Runs a command to its end; past the limit it is killed with all of its process group and the test fails.

    Args:
        argv: the command.
        timeout: limit in seconds, on a real processor.
        stdin: its standard input; None is /dev/null.
        cwd: its working directory.
        env: its whole environment; None is the caller's.
        pass_fds: fds that stay open in it, under the same numbers.
    """
    __tracebackhide__ = True
    timeout *= SLOWNESS
    words = [str(word) for word in argv]
    # Files, not pipes: a container that the command leaves running has them as its stdio, and no end of file comes.
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=out,
            stderr=err,
            text=True,
            errors="replace",
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        ) as process:
            try:
                process.communicate(stdin, timeout=timeout)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=5)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    result = Result(words, process.returncode, *texts)
    assert ended, f"no end after {timeout} seconds: {result!r}"
    return result
