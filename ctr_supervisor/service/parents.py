"""Who can be the parent of a container process when a supervisor's job does the thinking: the client, or a keeper."""

import errno
import os
import select
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctr_common.bootstrap import boolean, u32
from ctr_common.errors import ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.wire import ERROR, Wire
from ctr_supervisor.process.parent import FIRST_FREE_FD, Parent

if TYPE_CHECKING:
    from ctr_common.bootstrap import Attributes
    from ctr_supervisor.engine.launch import Launched
    from ctr_supervisor.process.notify import NotifySocket

# How long a job stays for a process in the foreground. Most that end in this time save the delete a job of its own.
LINGER = 1.0
# A client that does not answer for so long is stopped, or gone wrong.
CLIENT_TIMEOUT = 60.0


class ClientParent(Parent):
    """The thin client at the other end of a connection: it runs ctr-init, and waits for the container process.

    Args:
        wire: the connection.
        executable: ctr-init in a sealed memfd.
        home: see Parent.
    """

    __slots__ = ("_executable", "_foreground", "_handed_over", "_subreaper", "_unanswered", "wire")

    def __init__(self, wire: Wire, executable: int, home: int) -> None:
        super().__init__(home=home)
        self.wire = wire
        self._executable = executable
        self._foreground = False
        self._subreaper = False
        self._handed_over = False
        self._unanswered = False

    @property
    def handed_over(self) -> bool:
        """Whether the client goes on without this job: there is nothing more to say to it."""
        return self._handed_over

    def spawn(self, socket: int, preserve_fds: int) -> int:
        """Tells the client to start stage 0, and does not wait for it: a failure shows when it should speak."""
        target = FIRST_FREE_FD + preserve_fds
        self.wire.send(
            "spawn",
            {"executable": self._executable, "socket": socket},
            argv=["ctr-init"],
            env=[f"CTR_INIT_SOCKET={target}"],
            preserve_fds=preserve_fds,
            foreground=self._foreground,
            subreaper=self._subreaper,
        )
        self._unanswered = True
        return 0

    def stage0_done(self, pid: int) -> None:
        """The client reaps it."""

    def stage0_failed(self, pid: int) -> None:
        """Whatever is left of it ends with its socket, and the client reaps it.

        Raises:
            InitError: the client could not even run it.
        """
        self.settle()

    def settle(self) -> None:
        """Hears what became of the spawn: with a word unheard the client would take the end for a reset (unix(7)).

        Raises:
            CtrError: the client could not run it.
        """
        if self._unanswered:
            self._unanswered = False
            answer = self.wire.receive(CLIENT_TIMEOUT)
            if answer is not None:
                with answer:
                    if answer.type == ERROR:
                        raise answer.error()
                    self._have_reaped(answer.get("pid", int, 0))

    def wait(self, pid: int) -> int:
        """Never: it is the client's to wait for, and soon, since the end of a pid namespace waits for it."""
        self._have_reaped(pid)
        raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))

    def _have_reaped(self, pid: int) -> None:
        try:
            self.wire.send("reap", None, pid=pid)
        except ProtocolError:
            # Its children are somebody else's by now, and what is to be undone must be undone all the same.
            pass

    def check_preserved_fds(self, count: int) -> None:
        """The client has them, and looks for itself when it is told to spawn."""

    def foreground(self, subreaper: bool, delete: "tuple[str, str] | None" = None) -> "ClientAttendance":
        """Tells the client with the next spawn that it will stay for the process."""
        self._foreground = True
        self._subreaper = subreaper
        return ClientAttendance(self, delete)

    def attend(self, launched: "Launched", console: Fd, delete: "tuple[str, str] | None") -> int | None:
        """Leaves the process to the client.

        Args:
            delete: state root and id of the container that is to be deleted when it ends.

        Returns:
            Its exit status, or None when it outlives this job.
        """
        self.settle()
        fds = {"console": console.fileno()} if console.number >= 0 else None
        root, container_id = delete or ("", "")
        self.wire.send("attend", fds, pid=launched.pid, root=root, id=container_id, finish=delete is not None)
        deadline = time.monotonic() + LINGER
        poll = select.poll()
        poll.register(self.wire.fileno(), select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            answer = self.wire.receive()
            if answer is None:
                break
            with answer:
                if answer.type == "ended":
                    status: int = answer.get("status", int, 1)
                    return status
                if answer.type == ERROR:
                    raise answer.error()
        self._handed_over = True
        return None


class ClientAttendance:
    """The client in the foreground."""

    __slots__ = ("_delete", "_parent")

    def __init__(self, parent: ClientParent, delete: "tuple[str, str] | None") -> None:
        self._parent = parent
        self._delete = delete

    def attend(self, launched: "Launched", console_master: Fd, notify: "NotifySocket | None" = None) -> int | None:
        """See `ClientParent.attend`; a client with a notify socket is not served by jobs at all."""
        assert notify is None
        return self._parent.attend(launched, console_master, self._delete)


class KeeperParent(Parent):
    """The first stage of ctr-init stays as the parent of a container process, and writes down how it ended.

    It outlives the supervisor. The process of an `exec` has no keeper: it becomes the supervisor's child.
    """

    __slots__ = ("_kept",)

    def __init__(self, stdio: tuple[int, int, int], home: int) -> None:
        super().__init__(stdio, home)
        self._kept = False

    def bootstrap(self, status_directory: str, index: int) -> "tuple[Attributes, Sequence[int]]":
        """Asks for a keeper where there is a state directory to write into."""
        if not status_directory:
            return (), ()
        self._kept = True
        directory = os.open(status_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return ((_kernel.ATTR_KEEPER, boolean(True)), (_kernel.ATTR_STATUS_FD, u32(index))), (directory,)

    def stage0_done(self, pid: int) -> None:
        """A keeper stays."""
        if self._kept:
            self.keeper = pid
        else:
            super().stage0_done(pid)

    def wait(self, pid: int) -> int:
        """The keeper's to wait for, where there is one."""
        if self._kept:
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        return super().wait(pid)
