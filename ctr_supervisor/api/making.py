"""The engine at work for a program that goes on: with streams of the caller's choice, and safe beside other threads.

Nothing of the program changes but the fds that are its own: beside other threads no fork runs Python, and no directory,
mask, environment or signal handler is touched (ctr_common/programs.py and ctr_init/program.py say how).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ctr_common import fastjson, programs
from ctr_common.channel import Channel
from ctr_common.errors import NotSupported
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.state import CONFIG_FILE, StateDir
from ctr_init.program import SOCKET_FD, send_plan
from ctr_init.worker import Worker
from ctr_supervisor.engine import create, launch
from ctr_supervisor.process import console
from ctr_supervisor.process.parent import FIRST_FREE_FD, Parent, cannot_run, executable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.types import Config
    from ctr_supervisor.engine.options import CreateOptions
    from ctr_supervisor.engine.runtime import Runtime
    from ctr_supervisor.process.parent import Attendance

SIGKILL = 9


class ProgramParent(Parent):
    """This program as the parent of container processes.

    Args:
        stdio: what becomes 0, 1 and 2.
        extra: what becomes 3, 4, ….
    """

    __slots__ = ("extra",)

    def __init__(self, stdio: tuple[int, int, int], extra: Sequence[int] = ()) -> None:
        super().__init__(stdio)
        self.extra = extra

    def spawn(self, socket: int, preserve_fds: int) -> int:
        """Starts stage 0 of ctr-init; of our fds it gets those that are meant for it, inheritable or not."""
        target = FIRST_FREE_FD + preserve_fds
        fds = [*self.stdio, *self.extra, socket]
        fd_map = [(fd, number) for number, fd in enumerate(fds)]
        with executable() as file:
            try:
                pid, pidfd = _kernel.spawn(file.fileno(), ["ctr-init"], [f"CTR_INIT_SOCKET={target}"], fd_map, True)
            except OSError as error:
                raise cannot_run(error) from None
        os.close(pidfd)
        return pid

    def stage0_done(self, pid: int) -> None:
        """It ends; somebody in this program may have waited for it already."""
        reap(pid)

    def stage0_failed(self, pid: int) -> None:
        """Nothing of it may stay."""
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            pass
        reap(pid)

    def check_preserved_fds(self, count: int) -> None:
        """They were looked at when the process was described."""

    def foreground(self, subreaper: bool, delete: tuple[str, str] | None = None) -> Attendance:
        """Never: a program has other things to do.

        Raises:
            NotSupported: always.
        """
        raise NotSupported("a program does not stay in the foreground for a container")


def reap(pid: int) -> None:
    """Waits for a child, unless a handler of SIGCHLD in this program has done so."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


class KeptStateDir(StateDir):
    """A state directory that a failed creation leaves as it was: taken, with a configuration, without a process."""

    __slots__ = ("before",)

    def __init__(self, root: str, container_id: str) -> None:
        super().__init__(root, container_id)
        self.before: tuple[Config, dict[str, Any]] | None = None

    def remove(self) -> None:
        """Puts back what was there; without `before` it removes all, as the base does."""
        if self.before is None:
            super().remove()
            return
        config, state = self.before
        self.remove_fifo()
        self.write(CONFIG_FILE, fastjson.dumps(config).encode())
        self.save(state)
        self.unlock()


class Making(create.Creation):
    """A creation whose setup worker is a program of its own where this one has other threads.

    Else it is a fork as everywhere: nobody is there to see what that changes of this process for a moment.
    """

    def __init__(
        self, runtime: Runtime, directory: KeptStateDir, config: Config, bundle: str, options: CreateOptions
    ) -> None:
        super().__init__(runtime, directory, config, bundle, options)
        self.worker_socket = Fd(-1)

    def prepare_notify(self) -> None:
        """A NOTIFY_SOCKET in the environment is for this program, not for its containers."""

    def make_cgroups(self) -> None:
        """Starts the worker's interpreter first: what it does until it is needed takes no time."""
        if programs.is_alone():
            super().make_cgroups()
            return
        ours, theirs = _kernel.socketpair()
        self.worker_socket = Fd(ours)
        with Fd(theirs):
            pid, pidfd = programs.spawn("ctr_init.program", "main", [(theirs, SOCKET_FD)])
        os.close(pidfd)
        self.worker = Worker(pid, ours)
        super().make_cgroups()

    def record_process(self, launched: launch.Launched) -> None:
        """Writes down what the process's own streams are, not this program's; saved with the next step."""
        super().record_process(launched)
        described = [_describe(fd) for fd in self.runtime.parent.stdio]
        self.container.state["external_descriptors"] = described

    def set_up_namespaces(self, launched: launch.Launched) -> str | None:
        """Has the program do what a fork does elsewhere."""
        if self.worker is None:
            return super().set_up_namespaces(launched)
        send_plan(self.worker_socket.fileno(), self.plan(launched.pid, launched.pidfd.fileno()))
        done, console_wanted, hooks = _kernel.MSG_WORKER_DONE, _kernel.MSG_CONSOLE, _kernel.MSG_WORKER_HOOKS
        with Channel(self.worker_socket.take(), "setup worker") as channel:
            while True:
                message = channel.expect(hooks, console_wanted, done, timeout=create.WORKER_TIMEOUT)
                if message.type == done:
                    home = message.text(_kernel.ATTR_HOME)
                    message.close()
                    return home
                self.answer_worker(channel, message)

    def reap_worker(self) -> None:
        """Waits for the worker's end."""
        self.worker_socket.close()
        if self.worker is not None:
            pid, self.worker = self.worker.pid, None
            reap(pid)

    def take_console(self, master: int) -> None:
        """Where the master of the pty belongs; the size is the caller's, and not that of our terminal."""
        super().take_console(master)
        give_size(self.console_master, self.process)


def give_size(master: Fd, process: Any) -> None:
    """Gives a terminal the size that its process asks for, 0 by 0 without one."""
    if master.number >= 0:
        import fcntl
        import termios

        size = process.get("consoleSize") or {"height": 0, "width": 0}
        fcntl.ioctl(master.fileno(), termios.TIOCSWINSZ, console.WINDOW_SIZE.pack(size["height"], size["width"], 0, 0))


def _describe(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "/dev/null"
