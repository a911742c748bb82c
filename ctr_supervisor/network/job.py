"""Work with netlink, done in a child.

The child may enter a network namespace and never has to find its way back, and what pyroute2 brings along (200 ms of
imports, event loops, sockets) is gone with it: the engine, which forks the setup worker next, stays as small as it was.
The child is a fork, or beside other threads, where a fork could wait for their locks for ever, a program of its own.
"""

import os
import select
import time

from ctr_common import fastjson, programs
from ctr_common.errors import CtrError, NotSupported, ProtocolError, from_dict
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Netlink answers at once; only a hung driver, or somebody who sits on the kernel's rtnl lock, makes this wait.
TIMEOUT = 60.0

SIGKILL = 9
CHUNK = 65536

# Of the child as a program of its own.
DESCRIPTION_FD, ANSWER_FD, FIRST_FD = 3, 4, 5


def run(step: str, work: "Callable[..., Any]", *arguments: "Any") -> "Any":
    """Calls a function in a child.

    Args:
        step: what is being done, for errors that don't say it themselves.
        work: a function of a module; what it returns has to be JSON.
        arguments: its arguments, JSON too; numbers are fds, which stay the caller's.

    Returns:
        What `work` returned.

    Raises:
        CtrError: what `work` raised; a failure of a system call or of netlink becomes one, with its errno.
        ProtocolError: the child died, or was still at it after TIMEOUT seconds.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with Fd(reading) as reader, Fd(writing) as writer:
        pid = _fork(writer, step, work, arguments) if programs.is_alone() else _spawn(writer, step, work, arguments)
        try:
            writer.close()
            answer = _read_all(reader.fileno())
        except BaseException:
            os.kill(pid, SIGKILL)
            raise
        finally:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass  # a program that uses the engine may reap whatever is there
    if not answer:
        raise ProtocolError("the process that speaks to the kernel's network died, or took too long", step=step)
    data = fastjson.loads(answer)
    if "error" in data:
        raise from_dict(data["error"])
    return data["result"]


def _fork(writer: Fd, step: str, work: "Callable[..., Any]", arguments: "tuple[Any, ...]") -> int:
    pid = os.fork()
    if pid == 0:
        _child(writer.fileno(), step, work, arguments)
    return pid


def _spawn(writer: Fd, step: str, work: "Callable[..., Any]", arguments: "tuple[Any, ...]") -> int:
    # The fds among the arguments come after the two that the program itself needs.
    fds = [argument for argument in arguments if type(argument) is int]
    numbers = iter(range(FIRST_FD, FIRST_FD + len(fds)))
    renumbered = [next(numbers) if type(argument) is int else argument for argument in arguments]
    job = {"step": step, "module": work.__module__, "function": work.__name__, "arguments": renumbered}
    with Fd(_kernel.memfd_sealed("ctr-job", fastjson.dumps(job).encode())) as description:
        fd_map = [(description.fileno(), DESCRIPTION_FD), (writer.fileno(), ANSWER_FD)]
        fd_map += [(fd, FIRST_FD + index) for index, fd in enumerate(fds)]
        pid, pidfd = programs.spawn(__name__, "main", fd_map)
    os.close(pidfd)
    return pid


def main() -> int:
    """The child as a program of its own; returns the exit status."""
    from importlib import import_module

    with open(DESCRIPTION_FD, "rb") as description:
        job = fastjson.loads(description.read())
    work = getattr(import_module(job["module"]), job["function"])
    _child(ANSWER_FD, job["step"], work, tuple(job["arguments"]))
    return 0


def _read_all(fd: int) -> bytes:
    """Everything up to the end of file; nothing at all after TIMEOUT seconds."""
    chunks: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, CHUNK)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    raise ProtocolError(f"the kernel's network did not answer for {TIMEOUT:g} seconds")


def _child(writer: int, step: str, work: "Callable[..., Any]", arguments: "tuple[Any, ...]") -> None:
    """The child; never returns, since above it is the engine's stack."""
    try:
        try:
            data = {"result": work(*arguments)}
        except Exception as error:
            data = {"error": as_error(error, step).as_dict()}
        view = memoryview(fastjson.dumps(data).encode())
        while view:
            view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


def as_error(error: Exception, step: str) -> CtrError:
    """An exception of this code, of the system or of pyroute2 as a CtrError.

    Args:
        step: what was being done, where the exception does not say.
    """
    if isinstance(error, CtrError):
        error.step = error.step or step
        return error
    if isinstance(error, ImportError):
        return NotSupported(f"{error}: networks need the Python package pyroute2", step=step)
    if isinstance(error, OSError):
        return CtrError.from_os_error(error, step)
    # pyroute2's NetlinkError: an errno and, where the kernel sent one, a text
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return CtrError(step=step, syscall="netlink", errno=code)
    return CtrError(f"{type(error).__name__}: {error}", step=step)
