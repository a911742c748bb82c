"""Another program in this process: the supervisor executes its own launcher again, and nobody is interrupted by it.

old program: tries the launcher ── --check-upgrade ──▶ new program, in a process of its own: imports, compares versions
             puts what it has into a memfd, and its fds beside it
             execve
new program: takes them over, starts a pool of its own, answers the request; jobs of the old pool end there
"""

import os
from typing import TYPE_CHECKING, Any

from ctr_common.errors import CtrError, ProtocolError, StateError, WrongState
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.wire import Packet, decode, encode
from ctr_supervisor.service import options, succession

if TYPE_CHECKING:
    from ctr_supervisor.service.activation import Manager
    from ctr_supervisor.service.connection import Connection
    from ctr_supervisor.service.loop import Timer
    from ctr_supervisor.service.supervisor import Supervisor

# Version of what is handed over. A program takes those that it knows.
VERSION = 1
TAKEN = (1,)

# The one announcement of inherited fds: the number of the memfd, in which the others stand.
VARIABLE = "CTR_SUPERVISOR_UPGRADE"
CHECK_FLAG = "--check-upgrade"

# Seconds for the new program to show that it would work, on a loaded machine.
CHECK_TIME = 60.0
OUTPUT_MAX = 4096
SIGKILL = 9


class Upgrade:
    """Goes on as another program when it is asked to.

    Args:
        argv: of this process, the launcher's absolute path first.
        limits: what the soft and the hard limit of open files were before this program raised them.
        own_socket: the socket is not a service manager's.
    """

    def __init__(
        self,
        supervisor: "Supervisor",
        manager: "Manager",
        argv: list[str],
        limits: tuple[int, int],
        own_socket: bool,
    ) -> None:
        self.supervisor = supervisor
        self.manager = manager
        self.argv = argv
        self.limits = limits
        self.own_socket = own_socket
        self.refused = ""
        self._asked: list[tuple[Connection, Packet]] = []
        self._pid = 0
        self._output = Fd(-1)
        self._timer: Timer | None = None

    def on_request(self, connection: "Connection", request: Packet) -> None:
        """The request `upgrade`; the new program answers it.

        Raises:
            WrongState: the supervisor is about to end.
        """
        if self.refused:
            raise WrongState(self.refused)
        self._asked.append((connection, request))
        self.begin()

    def begin(self) -> None:
        """Has the new program checked, and then goes on as it.

        Raises:
            WrongState: the supervisor is about to end.
        """
        if self.refused:
            raise WrongState(self.refused)
        if self._pid:
            return
        try:
            self._output = Fd(os.memfd_create("ctr-upgrade-check"))
            self._pid = self._spawn_check(self._output.fileno())
        except OSError as error:
            self._output.close()
            self._fail(CtrError.from_os_error(error, step="checking the new program", path=self.argv[0]))
            return
        self._timer = self.supervisor.loop.call_later(CHECK_TIME, self._lose_patience)

    def _spawn_check(self, output: int) -> int:
        with Fd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) as null:
            actions = [(os.POSIX_SPAWN_DUP2, null.fileno(), 0)]
            actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
            argv = [self.argv[0], CHECK_FLAG, str(VERSION)]
            return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=())

    def child_ended(self, pid: int, status: int) -> bool:
        """Looks at a child that was reaped; whether it was the one that checks."""
        if pid != self._pid or not pid:
            return False
        self._pid = 0
        if self._timer is not None:
            self._timer.cancel()
        with self._output as output:
            said = os.pread(output.fileno(), OUTPUT_MAX, 0).decode("utf-8", "replace").strip()
        if os.waitstatus_to_exitcode(status) != 0:
            self._fail(StateError(f"the new program would not work: {said or status}", path=self.argv[0]))
        else:
            self.supervisor.dispatch.hold(self._execute)
        return True

    def _lose_patience(self) -> None:
        try:
            os.kill(self._pid, SIGKILL)
        except ProcessLookupError:
            pass

    def _execute(self) -> None:
        if self.refused:
            # The end began while the new program was tried, and would be forgotten.
            self._fail(WrongState(self.refused))
            return
        supervisor = self.supervisor
        kept: list[int] = []

        def keep(fd: int) -> int:
            kept.append(fd)
            return fd

        state = succession.export(supervisor, keep)
        numbers = [one["fd"] for one in state["connections"]]
        asked = [
            [numbers.index(connection.wire.fileno()), request.body]
            for connection, request in self._asked
            if not connection.closed
        ]
        body = {
            "type": "upgrade",
            "version": VERSION,
            "pid": os.getpid(),
            "listener": keep(supervisor.listener.fileno()),
            "limits": list(self.limits),
            "own_socket": self.own_socket,
            "manager": self.manager.state,
            "asked": asked,
            "supervisor": state,
            "fds": kept,
        }
        try:
            memfd = _kernel.memfd_sealed("ctr-upgrade", encode(body))
        except (OSError, CtrError) as error:
            self._fail(StateError(f"what is to be handed over can't be put down: {error}"))
            return
        self.manager.reloading()
        for fd in (*kept, memfd):
            os.set_inheritable(fd, True)
        try:
            os.execve(self.argv[0], self.argv, {**os.environ, VARIABLE: str(memfd)})
        except OSError as error:
            for fd in kept:
                os.set_inheritable(fd, False)
            os.close(memfd)
            self.manager.ready("serving; could not be upgraded")
            self._fail(CtrError.from_os_error(error, step="executing the new program", path=self.argv[0]))

    def _fail(self, error: CtrError) -> None:
        """The old program goes on.

        Raises:
            StateError: it has no pool any more, which only another program can start.
        """
        if self.supervisor.dispatch.lost:
            raise StateError(f"the pool of workers has ended, and {error}")
        self.supervisor.dispatch.release()
        asked, self._asked = self._asked, []
        for connection, request in asked:
            connection.answer_error(request, error)
        if not asked:
            options.log(f"ignoring the upgrade: {error}")


def take() -> dict[str, Any] | None:
    """What the program before this one in this process has handed over; None at a start.

    Raises:
        StateError: it can't be read, or is of another version.
    """
    announced = os.environ.pop(VARIABLE, "")
    if not announced.isdecimal():
        return None
    try:
        with Fd(int(announced)) as memfd:
            size = os.fstat(memfd.fileno()).st_size
            data = os.pread(memfd.fileno(), size, 0)
            state = decode(data)
    except (OSError, CtrError) as error:
        raise StateError(f"the state of the program before can't be read: {error}") from None
    if state.get("version") not in TAKEN or state.get("pid") != os.getpid():
        raise StateError(f"the state of the program before has version {state.get('version')}, expected {TAKEN}")
    for fd in state["fds"]:
        os.set_inheritable(fd, False)
    return state


def answer(supervisor: "Supervisor", state: dict[str, Any]) -> None:
    """Tells those who asked for the upgrade that it is done; nobody needs what was handed over any more."""
    for index, body in state["asked"]:
        supervisor.restored[index].answer(Packet(body, {}), **supervisor.status())
    # They may end, and then nothing of them is to stay.
    supervisor.restored.clear()
    state.clear()


def check(version: str) -> int:
    """What `--check-upgrade` does: everything that the new program needs is there, and understands the old one's state.

    Args:
        version: of the state, as a decimal number.

    Returns:
        The exit status.
    """
    from ctr_supervisor.service import job, pid1, supervisor  # noqa: F401

    if not version.isdecimal() or int(version) not in TAKEN:
        print(f"state of version {version} is not understood, only {TAKEN}")
        return 1
    return 0


def ask(path: str) -> int:
    """What `--upgrade` does: asks the supervisor that serves a socket, and waits until the new program answers.

    Returns:
        The exit status.

    Raises:
        CtrError: there is none, or it goes on as it was.
    """
    from ctr_supervisor.api.connection import open_wire

    try:
        connected, wire = open_wire(path)
    except ProtocolError as error:
        raise StateError("no supervisor serves this socket", path=path, errno=error.errno) from None
    with connected:
        wire.expect("hello", timeout=CHECK_TIME).close()
        wire.send("upgrade")
        with wire.expect("result", timeout=2 * CHECK_TIME) as packet:
            print(f"ctr-supervisor {packet.get('version', str, '')} serves, pid {packet.get('pid', int, 0)}")
    return 0
