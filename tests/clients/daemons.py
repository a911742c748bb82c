"""Daemons that live as long as the test run, and what has to go when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.support.waiting import until

# Environment of every engine: nothing of the caller's configuration may reach it.
CLEAN_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "xterm",
    # Podman 5 writes to stderr that cgroup v1 will go; tests read stderr
    "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
}


class Daemon:
    """A daemon with all of its files below one directory.

    Args:
        argv: how to start it.
        directory: where its files are; its log is `log` in there.
        env: additions to its environment.
    """

    def __init__(self, argv: Sequence[str | Path], directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = str(argv[0])
        self.directory = directory
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**CLEAN_ENV, **(env or {})},
                cwd=directory,
                start_new_session=True,
            )

    def wait_until_ready(self, ready: Callable[[], bool], limit: float = 60) -> None:
        """Waits until it answers; the end of its log is in the failure when it does not."""
        try:
            until(f"{self.name} is ready", lambda: self.process.poll() is not None or ready(), limit)
            assert self.process.poll() is None
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n" + "\n".join(self.log.read_text().splitlines()[-20:])) from None

    def stop(self) -> None:
        """Ends it, whatever it started, and its mounts."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        kill_users_of(self.directory)
        unmount_below(self.directory)


def users_of(directory: Path) -> list[int]:
    """Processes that name the directory on their command line: shims and monitors outlive their daemons."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path("/proc", name, "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if f"{directory}/".encode() in words or words.endswith(f"{directory}\0".encode()):
                found.append(int(name))
    return found


def _all_gone(directory: Path, pids: set[int]) -> bool:
    return not pids & set(users_of(directory))


def kill_users_of(directory: Path) -> None:
    """Kills the processes that name the directory on their command line."""
    deadline = time.monotonic() + 10
    while (pids := users_of(directory)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until("killed processes are gone", partial(_all_gone, directory, set(pids)), 5)


def unmount_below(directory: Path) -> None:
    """Detaches every mount below the directory, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted(points, key=len, reverse=True):
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", point], check=False, timeout=20, capture_output=True)


def remove_cgroups(name: str) -> None:
    """Removes the empty cgroups of that name, with all below them, in every hierarchy."""
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        if name in directories:
            for path, _, _ in os.walk(os.path.join(top, name), topdown=False):
                try:
                    os.rmdir(path)
                except OSError as error:
                    print(f"ignoring: {error}")
