"""Containers that are looked at from inside: what their process prints is what the test reads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.bundles import Bundles, Config, Mutator
from tests.support.command import Result, run
from tests.support.leaks import reap
from tests.support.runtime import Runtime
from tests.support.slowness import SLOWNESS
from tests.support.waiting import until
from tests.support.waiting_container import Mount, parse_mountinfo

SOURCE = Path(__file__).with_name("probe.c")
USUAL = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "MKNOD", "SETGID", "SETUID", "SYS_ADMIN")


def build_probe(directory: Path) -> Path:
    """Compiles the probe, a static program that tells what a process can find out about itself."""
    probe = directory / "probe"
    command = ["musl-gcc", "-std=c11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", probe, SOURCE]
    subprocess.run(command, check=True, timeout=60 * SLOWNESS)
    return probe


def merge(config: Config, changes: Mapping[str, Any]) -> None:
    """Puts changes into a configuration: objects are merged, everything else is replaced, None removes."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            merge(config[key], value)
        elif value is None:
            config.pop(key, None)
        else:
            config[key] = value


def changed(*changes: Mapping[str, Any] | Mutator | None) -> Mutator:
    """One function that makes several changes to a configuration: functions, or objects to merge into it."""

    def change(config: Config) -> None:
        for item in changes:
            if callable(item):
                item(config)
            elif item:
                merge(config, item)

    return change


def as_root_of_the_host(config: Config) -> None:
    """Gives the process what a test needs to look around: root's usual capabilities and no no_new_privs."""
    names = [f"CAP_{name}" for name in USUAL]
    kinds = ("bounding", "effective", "permitted", "inheritable")
    config["process"]["capabilities"] = dict.fromkeys(kinds, names)
    config["process"]["noNewPrivileges"] = False


def namespaces(*kinds: str | dict[str, str]) -> list[dict[str, str]]:
    """A list for `.linux.namespaces`."""
    return [{"type": kind} if isinstance(kind, str) else kind for kind in kinds]


def mount(destination: str | Path, kind: str, source: str | Path, *options: str, **more: Any) -> dict[str, Any]:
    """An entry for `.mounts`."""
    return {"destination": str(destination), "type": kind, "source": str(source), "options": list(options), **more}


def with_mounts(*entries: dict[str, Any]) -> Mutator:
    """Adds mounts after those of the default configuration."""
    return lambda config: config["mounts"].extend(entries)


class Inside:
    """Runs a container and gives what its process printed.

    Args:
        ctrun: the runtime under test.
        runc: the reference.
        bundle: factory of bundles, whose root file system has the probe.
        new_container_id: factory of ids.
    """

    def __init__(self, ctrun: Runtime, runc: Runtime, bundle: Bundles, new_container_id: Callable[[], str]) -> None:
        self.ctrun = ctrun
        self.runc = runc
        self.bundle = bundle
        self.new_container_id = new_container_id
        self.has_runc = shutil.which("runc") is not None

    def result(self, *argv: str, change: Any = None, writable: bool = False, runc: bool = False) -> Result:
        """How `run` of a container ends.

        Args:
            argv: its process.
            change: to the configuration: an object to merge into it, a function, or a list of such.
            writable: its root file system may be written to.
            runc: runc knows all of it, so it has to end as runc's does.
        """
        __tracebackhide__ = True
        changes = change if isinstance(change, list) else [change]
        path = self.bundle(changed(*changes), args=list(argv), writable=writable)
        name = self.new_container_id()
        result = self.ctrun("run", "-b", path, name)
        if runc and self.has_runc:
            other = self.new_container_id()
            theirs = self.runc("run", "-b", path, other)
            same = (result.code, result.out.replace(name, "ID")) == (theirs.code, theirs.out.replace(other, "ID"))
            assert same, f"{result!r}\nbut with runc:\n{theirs!r}"
        return result

    def __call__(self, *argv: str, change: Any = None, writable: bool = False, runc: bool = False) -> str:
        """What the container prints; see `result`."""
        __tracebackhide__ = True
        return self.result(*argv, change=change, writable=writable, runc=runc).text

    def shell(self, script: str, change: Any = None, writable: bool = False, runc: bool = False) -> str:
        """What a script for the image's shell prints."""
        __tracebackhide__ = True
        return self("sh", "-c", script, change=change, writable=writable, runc=runc)

    def probe(self, change: Any = None, runc: bool = False) -> dict[str, str]:
        """What the probe, as the container's process, finds out about itself."""
        __tracebackhide__ = True
        return parse_probe(self("probe", change=change, runc=runc))

    def mounts(self, change: Any = None, runc: str = "") -> list[Mount]:
        """The container's mounts, in their order.

        Args:
            change: to the configuration.
            runc: mounts that have to have the same options as with runc: those at this place and below.
        """
        __tracebackhide__ = True
        found = parse_mountinfo(self("cat", "/proc/self/mountinfo", change=change))
        if runc and self.has_runc:
            path = self.bundle(changed(*(change if isinstance(change, list) else [change])))
            theirs = parse_mountinfo(self._runc_mounts(path))
            ours, others = ({m.point: m.options for m in each if m.point.startswith(runc)} for each in (found, theirs))
            assert ours == others
        return found

    def _runc_mounts(self, path: Path) -> str:
        import json

        config = json.loads((path / "config.json").read_text())
        config["process"]["args"] = ["cat", "/proc/self/mountinfo"]
        (path / "config.json").write_text(json.dumps(config))
        return self.runc("run", "-b", path, self.new_container_id()).text

    def mount_at(self, point: str, change: Any = None, runc: bool = False) -> Mount:
        """The uppermost mount at a place in the container."""
        __tracebackhide__ = True
        found = self.mounts(change, point if runc and point != "/" else "")
        return [entry for entry in found if entry.point == point][-1]

    def refused(self, change: Any, *argv: str) -> str:
        """What is said about a container that can not be made; fails the test if it can."""
        __tracebackhide__ = True
        result = self.result(*(argv or ("true",)), change=change)
        assert result.code != 0, repr(result)
        return result.err

    @contextmanager
    def created(self, *argv: str, change: Any = None, writable: bool = False, start: bool = False) -> Iterator[Living]:
        """A container that is there during the block: created, and started if asked for."""
        __tracebackhide__ = True
        changes = change if isinstance(change, list) else [change]
        path = self.bundle(changed(*changes), args=list(argv or ("sleep", "1000")), writable=writable)
        name = self.new_container_id()
        self.ctrun("create", "-b", path, name).ok()
        try:
            if start:
                self.ctrun("start", name).ok()
            yield Living(self.ctrun, name, path)
        finally:
            end(self.ctrun, name)

    def running(self, *argv: str, change: Any = None, writable: bool = False) -> Any:
        """A container whose process runs during the block."""
        return self.created(*argv, change=change, writable=writable, start=True)


class Living:
    """A container that exists.

    Args:
        ctrun: the runtime.
        name: its id.
        bundle: its bundle.
    """

    def __init__(self, ctrun: Runtime, name: str, bundle: Path) -> None:
        self.ctrun = ctrun
        self.name = name
        self.bundle = bundle
        self.pid: int = ctrun.state(name)["pid"]

    def exec(self, *argv: str | Path, flags: tuple[str | Path, ...] = ()) -> Result:
        """Runs one more process in it."""
        __tracebackhide__ = True
        return self.ctrun("exec", *flags, self.name, *argv)

    def status(self) -> dict[str, str]:
        """/proc/PID/status of its process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def namespace(self, name: str) -> str:
        """Identity of one of its namespaces."""
        return os.readlink(f"/proc/{self.pid}/ns/{name}")

    def cgroup(self, controller: str) -> Path:
        """Its cgroup of a v1 controller."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return Path("/sys/fs/cgroup", controller, path.lstrip("/"))
        raise AssertionError(f"no cgroup of {controller}")

    def unified_cgroup(self) -> Path:
        """Its cgroup of v2, where that has the controllers."""
        path = Path(f"/proc/{self.pid}/cgroup").read_text().strip().rpartition("::")[2]
        return Path("/sys/fs/cgroup", path.lstrip("/"))


def end(ctrun: Runtime, name: str) -> None:
    """Ends and deletes a container, if there is one.

    The first process of a pid namespace ends after all others are reaped, and what a detached exec left behind is for
    this process to reap where it is the subreaper.
    """
    if not ctrun.status(name):
        return
    with subprocess.Popen([ctrun.path, *ctrun.globals, "delete", "--force", name]) as deleting:

        def deleted() -> bool:
            reap({deleting.pid})
            return deleting.poll() is not None

        until("it is deleted", deleted)


def parse_probe(text: str) -> dict[str, str]:
    """The lines of the probe."""
    return {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}


@contextmanager
def held_namespaces(*flags: str) -> Iterator[int]:
    """Pid of a process that holds new namespaces during the block.

    Args:
        flags: of unshare(1), such as `--uts`.
    """
    argv = ["unshare", *flags, "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield int(children[0])
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def script(*lines: str) -> str:
    """A shell script of several lines that ends at the first failure."""
    return "set -e\n" + "\n".join(lines)


def host(*argv: str | Path) -> str:
    """What a command prints on the host."""
    return run(*argv).text
