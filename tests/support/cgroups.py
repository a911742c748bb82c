"""Cgroups of tests: processes to put into them, and the view of a cgroup v2 host on one that has v1."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_INTO_CGROUP, CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC
from ctr_supervisor.cgroups import hierarchies, manager
from tests.support.waiting import until

serial = count()

# Opens the paths that it reads, a line each with the mode before it, and says with which errno that went.
PROBE = """
import os, sys
for line in sys.stdin:
    mode, path = line.split()
    try:
        os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[mode]))
        answer = 0
    except OSError as error:
        answer = error.errno
    print(answer, flush=True)
"""


def config(path: str | None = None, **resources: Any) -> Any:
    """A configuration with nothing but cgroups."""
    linux: dict[str, Any] = {"resources": resources}
    if path:
        linux["cgroupsPath"] = path
    return {"ociVersion": "1.0.2", "linux": linux}


class Sandbox:
    """A part of all hierarchies for one test: managers below it, and processes that end with it."""

    def __init__(self) -> None:
        self.top = f"/ctrtest-{os.getpid()}-cg{next(serial)}"
        self.children: list[subprocess.Popen[str]] = []

    def manager(self, name: str = "c", *, rootless: bool = False, **resources: Any) -> Any:
        """The cgroups of a container, not yet made."""
        return manager.for_container(config(f"{self.top}/{name}", **resources), name, rootless_cgroups=rootless)

    def created(self, name: str = "c", **resources: Any) -> Any:
        """The cgroups of a container, made and set."""
        made = self.manager(name, **resources)
        made.create()
        made.set(resources)
        return made

    def process(self, *argv: str) -> subprocess.Popen[str]:
        """A process; `sleep` if not said otherwise."""
        child = subprocess.Popen(
            argv or ("sleep", "1000"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.children.append(child)
        return child

    def go(self, child: subprocess.Popen[str]) -> None:
        """Lets a process go on that waits to read a line: it forks in its cgroup and not before."""
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()

    def probe(self) -> Probe:
        """A process that opens files when told."""
        return Probe(self.process(sys.executable, "-I", "-S", "-c", PROBE))

    def paths(self) -> list[str]:
        """Where the sandbox is in the file system."""
        return [mount + self.top for mount in hierarchies.hierarchies().mounts.values()]

    def close(self) -> None:
        """Ends the processes and removes the cgroups."""
        everything = manager.from_paths(
            {name: mount + self.top for name, mount in hierarchies.hierarchies().mounts.items()}, rootless_cgroups=False
        )
        everything.thaw()
        everything.kill(9)
        for child in self.children:
            child.kill()
            child.communicate(timeout=20)
        everything.destroy()


class Probe:
    """A process that opens files when told."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.pid = child.pid

    def ask(self, mode: str, path: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(f"{mode} {path}\n")
        self.child.stdin.flush()

    def answers(self, seconds: float) -> bool:
        """Whether it answers within a time."""
        return bool(select.select([self.child.stdout], [], [], seconds)[0])

    def open(self, mode: str, path: str) -> int:
        """The errno of an open; 0 if it went well."""
        self.ask(mode, path)
        assert self.child.stdout
        return int(self.child.stdout.readline())


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that is gone afterwards."""
    made = Sandbox()
    try:
        yield made
    finally:
        made.close()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except OSError:
        return True


def await_end(children: list[subprocess.Popen[str]]) -> None:
    """Waits until processes have ended."""
    until("processes end", lambda: all(gone(child.pid) for child in children))


def in_child(test: Callable[[], None]) -> None:
    """Runs a test in a child of its own, so that it may give up privileges."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            try:
                test()
                problem = ""
            except BaseException:
                problem = traceback.format_exc()
            os.write(writer, problem.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        problem = file.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if problem:
        raise AssertionError(problem)


NOBODY = 65534


def as_nobody(test: Callable[[], None]) -> None:
    """Runs a test in a child without privileges."""

    def run() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        test()

    in_child(run)


def in_v2_view(test: Callable[[Sandbox], None]) -> None:
    """Runs a test in a child for which /sys/fs/cgroup is a cgroup v2 mount, with what controllers it has.

    The controllers that the test makes the top cgroup hand on are taken back.
    """

    def run() -> None:
        _kernel.unshare(CLONE_NEWNS)
        _kernel.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
        _kernel.umount2("/sys/fs/cgroup", MNT_DETACH)
        _kernel.mount("none", "/sys/fs/cgroup", "cgroup2", 0, None)
        hierarchies._found = None
        control = Path("/sys/fs/cgroup/cgroup.subtree_control")
        before = set(control.read_text().split())
        try:
            with sandbox() as made:
                test(made)
        finally:
            for added in set(control.read_text().split()) - before:
                control.write_text(f"-{added}")

    in_child(run)


class CloneArguments(ctypes.Structure):
    """struct clone_args of clone3(2)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def fork_into(cgroup_fd: int) -> int:
    """Forks a child that is born in a cgroup and waits there to be killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = CloneArguments(flags=CLONE_INTO_CGROUP, exit_signal=17, cgroup=cgroup_fd)
    clone3 = 435  # the number is the same on all architectures
    pid = int(libc.syscall(clone3, ctypes.byref(arguments), ctypes.sizeof(arguments)))
    if pid == 0:
        while True:
            select.select([], [], [])
    assert pid > 0, os.strerror(ctypes.get_errno())
    return pid
