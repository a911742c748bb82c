"""Hostile containers and the changes to a configuration that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.security import racing
from tests.support.bundles import Config, Mutator
from tests.support.leaks import reap
from tests.support.runtime import Runtime
from tests.support.waiting import until

FOREVER = ["sleep", "1000"]

# Lists what the caller can see of every process but its own shell: a line "PID NAME THING" for each thing.
LOOK_AT_OTHERS = """
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" != $$ ] && read -r name 2>/dev/null <$process/comm || continue
    readlink $process/exe >/dev/null 2>&1 && echo "$pid $name exe"
    readlink $process/cwd >/dev/null 2>&1 && echo "$pid $name cwd"
    # root may list the numbers of any process in /proc; what stands behind them is another matter
    ls -l $process/fd/ 2>/dev/null | grep -q -e '->' && echo "$pid $name fd"
    ls $process/root/ >/dev/null 2>&1 && echo "$pid $name root"
    cat $process/environ >/dev/null 2>&1 && echo "$pid $name environ"
    dd if=$process/mem bs=1 count=0 >/dev/null 2>&1 && echo "$pid $name mem"
    cat $process/stack >/dev/null 2>&1 && echo "$pid $name stack"
    echo "$pid $name there"
done
"""


def changed(*mutators: Mutator) -> Mutator:
    """One mutator of several."""

    def mutate(config: Config) -> None:
        for mutator in mutators:
            mutator(config)

    return mutate


def with_mount(destination: str, source: Path | str, fstype: str = "bind", *options: str) -> Mutator:
    """Adds a mount; a bind mount of the whole tree unless another type is given."""

    def mutate(config: Config) -> None:
        config["mounts"].append(
            {
                "destination": destination,
                "type": fstype,
                "source": str(source),
                "options": [*(["rbind"] if fstype == "bind" else []), *options],
            }
        )

    return mutate


def without_mounts(*destinations: str) -> Mutator:
    """Leaves mounts of the default configuration out."""

    def mutate(config: Config) -> None:
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in destinations]

    return mutate


def plain(config: Config) -> None:
    """Leaves out what takes time and is not looked at: everything but procfs and /dev."""
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] in ("/proc", "/dev")]
    config["linux"]["maskedPaths"] = []
    config["linux"]["readonlyPaths"] = []


def with_hook(stage: str, script: str) -> Mutator:
    """Adds a hook that runs a shell script with the host's shell."""

    def mutate(config: Config) -> None:
        hook = {
            "path": "/bin/sh",
            "args": ["sh", "-ec", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "timeout": 20,
        }
        config.setdefault("hooks", {}).setdefault(stage, []).append(hook)

    return mutate


def with_user_namespace(config: Config) -> None:
    """A container whose root has every capability, in a user namespace."""
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    with_all_capabilities(config)


def with_all_capabilities(config: Config) -> None:
    """All that are known by now, as `--privileged` has it, less what the runtime's user may lack itself."""
    names = [
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
        *("CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_CHROOT"),
        *("CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_MKNOD"),
    ]
    config["process"]["capabilities"] = {kind: list(names) for kind in ("bounding", "effective", "permitted")}


def joining(kind: str, pid: int) -> Mutator:
    """Replaces a namespace by that of a process."""

    def mutate(config: Config) -> None:
        spaces = [entry for entry in config["linux"]["namespaces"] if entry["type"] != kind]
        name = {"mount": "mnt", "network": "net"}.get(kind, kind)
        config["linux"]["namespaces"] = [*spaces, {"type": kind, "path": f"/proc/{pid}/ns/{name}"}]

    return mutate


def end(ctrun: Runtime, container: str) -> None:
    """Kills and deletes a container, and buries its processes: they may be this process's children by now.

    The first process of a pid namespace does not end before the others there are buried (pid_namespaces(7)).
    """
    ctrun("kill", container, "KILL")

    def stopped() -> bool:
        reap(set())
        return ctrun.status(container) in ("stopped", "")

    until("end of the container", stopped)
    ctrun("delete", "--force", container).ok()


@contextmanager
def running(ctrun: Runtime, bundle: Path, container: str) -> Iterator[dict[str, Any]]:
    """A container that runs in the background; its OCI state."""
    ctrun("run", "-d", "-b", bundle, container).ok()
    try:
        yield ctrun.state(container)
    finally:
        end(ctrun, container)


@contextmanager
def created(ctrun: Runtime, bundle: Path, container: str) -> Iterator[dict[str, Any]]:
    """A container that waits for its start; its OCI state."""
    ctrun("create", "-b", bundle, container).ok()
    try:
        yield ctrun.state(container)
    finally:
        end(ctrun, container)


class Race:
    """Every interleaving of a container's start with one swap by a neighbour.

    Args:
        ctrun: the runtime.
        bundle: what to run.
        new_container_id: gives ids.
        one: the directory entry that the container uses.
        other: what the neighbour exchanges it with.
        touches: tells from the path of a system call that it is the first one about that entry.
    """

    def __init__(
        self,
        ctrun: Runtime,
        bundle: Path,
        new_container_id: Callable[[], str],
        one: Path,
        other: Path,
        touches: Callable[[str], bool],
    ) -> None:
        self.ctrun = ctrun
        self.bundle = bundle
        self.new_container_id = new_container_id
        self.one = one
        self.other = other
        self.touches = touches
        self.mount_points: list[str] = []

    def outcomes(self) -> Iterator[racing.Outcome]:
        """How each run ended; the swap comes ever later, until the container has its root before it comes.

        `mount_points` is what the container process saw right before the root changed, host and container alike.
        """
        swap_at = 0
        while True:
            outcome, swapped = self._once(swap_at)
            yield outcome
            if not swapped:
                assert swap_at > 2, f"the path was never touched: {outcome!r}"
                return
            swap_at += 1

    def _once(self, swap_at: int) -> tuple[racing.Outcome, bool]:
        self.mount_points = []
        touched = 0
        over = swapped = False

        def at_stop(_: int, stop: racing.Stop) -> None:
            nonlocal touched, over, swapped
            if stop.name == "pivot_root":
                self.mount_points = stop.mount_points()
                over = True
            if over or (not touched and not self.touches(stop.path)):
                return
            touched += 1
            if touched > swap_at and not swapped:
                swapped = True
                racing.exchange(self.one, self.other)

        container = self.new_container_id()
        try:
            outcome = racing.run([self.ctrun.path, *self.ctrun.globals, "run", "-b", self.bundle, container], at_stop)
        finally:
            self.ctrun.remove(container)
            if swapped:
                racing.exchange(self.one, self.other)
        return outcome, swapped
