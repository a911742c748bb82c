"""A process that waits in fresh namespaces, as ctr-init does, for the setup worker to furnish them.

Run as a program, this file is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from ctr_common.channel import Channel, Message  # noqa: E402
from ctr_common.kernel import _kernel  # noqa: E402
from ctr_common.kernel.constants import (  # noqa: E402
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    SIGKILL,
)
from ctr_common.spec import namespaces  # noqa: E402
from ctr_init import worker  # noqa: E402
from ctr_init.join import become_root  # noqa: E402
from ctr_init.plan import SetupPlan  # noqa: E402

TIMEOUT = 20.0


class WaitingContainer:
    """A bundle whose first process waits in the namespaces that its configuration asks for.

    Args:
        bundle: directory with config.json and the root file system.
        uid: who the process, and later the worker, is on the host; not 0 for a rootless engine.
        plan: further arguments of the SetupPlan.
    """

    def __init__(self, bundle: Path, uid: int = 0, **plan: Any) -> None:
        self.bundle = bundle
        self.uid = uid
        self.config = json.loads((bundle / "config.json").read_text())
        flags = namespaces.clone_flags(self.config)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(flags), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            if flags & CLONE_NEWUSER:
                assert self._line() == "unshared"
                self._write_maps()
                self._say("mapped")
            self.pid = int(self._line())
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        self.pidfd = _kernel.pidfd_open(self.pid)
        arguments: dict[str, Any] = {
            "config": self.config,
            "bundle": str(bundle),
            "rootfs": str((bundle / self.config["root"]["path"]).resolve()),
            "container_id": bundle.name,
            "state": {"ociVersion": "1.0.2", "id": bundle.name, "status": "creating", "pid": self.pid},
            "pidfd": self.pidfd,
            "pid": self.pid,
            "join_flags": flags,
            "new_user_ns": bool(flags & CLONE_NEWUSER),
            "cgroup_paths": {},
            "cgroup_mode": "hybrid",
            "own_cgroup_ns": bool(flags & CLONE_NEWCGROUP),
            "rootless": uid != 0,
        }
        arguments.update(plan)
        self.plan = SetupPlan(**arguments)
        self.home: str | None = None
        self.worker_pid = 0
        self.console: tuple[int, int] | None = None

    def __enter__(self) -> WaitingContainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for fd in (self.pidfd, *(self.console or ())):
            os.close(fd)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _write_maps(self) -> None:
        for name in ("uid", "gid"):
            lines = [f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in self.config["linux"][f"{name}Mappings"]]
            Path(f"/proc/{self.process.pid}/{name}_map").write_text("".join(lines))

    def set_up(self, hooks: Callable[[], None] = lambda: None) -> WaitingContainer:
        """Runs the worker to its end.

        Args:
            hooks: called where the engine would run its hooks.

        Raises:
            CtrError: what the worker reported.
        """
        started = worker.start(self.plan)
        self.worker_pid = started.pid
        try:
            with Channel(started.fd, "setup worker") as channel:
                while True:
                    message = channel.expect(
                        _kernel.MSG_WORKER_HOOKS, _kernel.MSG_CONSOLE, _kernel.MSG_WORKER_DONE, timeout=TIMEOUT
                    )
                    if message.type == _kernel.MSG_WORKER_DONE:
                        self.home = message.text(_kernel.ATTR_HOME)
                        return self
                    self._answer(message, hooks)
                    channel.send(_kernel.MSG_ACKNOWLEDGED)
        finally:
            os.waitpid(started.pid, 0)

    def set_up_as_user(self) -> str:
        """Runs the worker for an engine that is the container's user; returns what failed, or an empty string."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            text = ""
            try:
                become(self.uid)
                self.set_up()
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
            os.write(writing, text.encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            text = told.read()
        os.waitpid(pid, 0)
        return text

    def _answer(self, message: Message, hooks: Callable[[], None]) -> None:
        if message.type == _kernel.MSG_CONSOLE:
            self.console = (
                message.take_fd(_kernel.ATTR_CONSOLE_MASTER_FD),
                message.take_fd(_kernel.ATTR_CONSOLE_SLAVE_FD),
            )
        else:
            hooks()

    def run(self, *argv: str) -> str:
        """What a command prints that the waiting process becomes, after it has entered its new root."""
        out, _ = self.process.communicate(json.dumps(argv) + "\n", timeout=TIMEOUT)
        return out

    def shell(self, script: str) -> str:
        """The same for a script for the image's shell."""
        return self.run("/bin/sh", "-c", script)

    def mountinfo(self) -> list[Mount]:
        """Its mounts, in the order in which they were made."""
        return parse_mountinfo(self.run("/bin/cat", "/proc/self/mountinfo"))


class Mount:
    """A line of mountinfo; `options` and `super_options` are sets."""

    def __init__(self, line: str) -> None:
        words = line.split(" ")
        dash = words.index("-")
        self.line = line
        self.root = words[3]
        self.point = words[4]
        self.options = frozenset(words[5].split(","))
        self.propagation = sorted(word.split(":")[0] for word in words[6:dash])
        self.type = words[dash + 1]
        self.source = words[dash + 2]
        self.super_options = frozenset(words[dash + 3].split(","))

    def key(self) -> tuple[object, ...]:
        """All that two runtimes should agree on; not ids, device numbers and peer groups."""
        return (
            self.root,
            self.point,
            tuple(sorted(self.options)),
            tuple(self.propagation),
            self.type,
            self.source,
            tuple(sorted(self.super_options)),
        )


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of a mountinfo file."""
    return [Mount(line) for line in text.splitlines()]


def become(uid: int) -> None:
    """Drops to an ordinary user, who may look at their own processes as after a login."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _kernel.prctl(PR_SET_DUMPABLE, 1)


def _wait_in_namespaces(flags: int, uid: int) -> None:
    if uid:
        become(uid)
    if flags & CLONE_NEWUSER:
        _kernel.unshare(flags)
        print("unshared", flush=True)
        sys.stdin.readline()
        become_root()
    else:
        _kernel.unshare(flags)
    reading, writing = os.pipe()
    pid = os.fork() if flags & CLONE_NEWPID else 0
    if pid:
        os.close(writing)
        os.read(reading, 1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        return
    _kernel.prctl(PR_SET_PDEATHSIG, SIGKILL)
    # A rootless engine's worker may join by pidfd only a process that it may trace (setns(2)).
    _kernel.prctl(PR_SET_DUMPABLE, 1)
    # Opened before anything is pivoted: joining it again leads to its root of then.
    own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if not flags & CLONE_NEWPID:
        print(os.getpid(), flush=True)
    os.close(writing)
    line = sys.stdin.readline()
    if line:
        argv = json.loads(line)
        _kernel.setns(own_mounts, CLONE_NEWNS)
        os.chdir("/")
        os.execve(argv[0], argv, {"PATH": "/bin:/sbin:/usr/bin"})


if __name__ == "__main__":
    _wait_in_namespaces(int(sys.argv[1]), int(sys.argv[2]))
