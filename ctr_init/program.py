"""The setup worker as a program of its own, for engines that may not fork: those in a program with several threads.

engine → program    one datagram with two fds: the plan as JSON in a sealed memfd, and the pidfd of the waiting process
then both speak as in worker.py

The program is started before the plan is known, so that the interpreter's start costs nothing: meanwhile ctr-init makes
the namespaces. An engine that ends, or gives up, closes the socket.
"""

import os

from ctr_common import fastjson
from ctr_common.channel import Channel, read_memfd
from ctr_common.errors import CtrError
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan

SOCKET_FD = 3
GREETING = b"plan"


def send_plan(socket: int, plan: "SetupPlan") -> None:
    """The engine's side: hands a plan to the program.

    Args:
        socket: the engine's end; stays the caller's, as the plan's pidfd does.

    Raises:
        CtrError: the program has ended.
    """
    given = {name: getattr(plan, name) for name in plan.__slots__ if name not in ("pidfd", "requests")}
    memfd = _kernel.memfd_sealed("ctr-plan", fastjson.dumps(given).encode("utf-8", "surrogateescape"))
    try:
        _kernel.sendmsg(socket, GREETING, (memfd, plan.pidfd))
    except OSError as error:
        raise CtrError.from_os_error(error, step="starting the setup worker") from None
    finally:
        os.close(memfd)


def receive_plan(socket: int) -> "SetupPlan | None":
    """The program's side: the plan, or None when the engine has given up.

    Raises:
        CtrError, OSError, ValueError: what came is no plan.
    """
    from ctr_init.plan import SetupPlan

    data, fds, _ = _kernel.recvmsg(socket, len(GREETING), 2)
    if not data:
        return None
    memfd, pidfd = fds
    given = fastjson.loads(read_memfd(memfd).decode("utf-8", "surrogateescape"))
    os.close(memfd)
    size = given["console_size"]
    given["console_size"] = (size[0], size[1]) if size else None
    return SetupPlan(pidfd=pidfd, **given)


def main() -> int:
    """Does what the plan says; returns the exit status."""
    # now, while the engine has other things to do
    from ctr_init import plan as _  # noqa: F401
    from ctr_init import worker

    try:
        plan = receive_plan(SOCKET_FD)
    except (CtrError, OSError, ValueError) as error:
        failure = error if isinstance(error, CtrError) else CtrError(f"reading the plan: {error}")
        Channel(SOCKET_FD, "engine").send_error(failure)
        return 1
    if plan is not None:
        worker.work(plan, SOCKET_FD, in_pid_namespace=False)
    return 0
