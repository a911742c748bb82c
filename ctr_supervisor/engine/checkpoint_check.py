"""`checkpoint --check`: what would stop a dump, found by looking at the running processes, before anything is frozen.

What it finds would stop CRIU; that it finds nothing is no promise, for only CRIU itself looks at everything.
"""

import os
import stat

from ctr_common.errors import CtrError, WrongState
from ctr_supervisor.engine import checkpoint_sockets as sockets
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import criu, criu_mounts
from ctr_supervisor.engine.criu_options import CheckpointOptions
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr_common.spec.types import Config

DELETED = " (deleted)"
# CRIU's own default of --ghost-limit.
GHOST_LIMIT = 1024 * 1024
TTY_MAJORS = (4, 5, *range(136, 144))
UNSUPPORTED_ANONYMOUS = ("io_uring", "perf_event", "bpf-prog", "bpf-map", "bpf_link", "kvm-vm", "userfaultfd")
# Types that CRIU restores only where they are bind mounts from outside.
UNSUPPORTED_MOUNTS = ("fuse", "nfs", "nfs4", "cifs", "9p", "virtiofs", "ceph")


class Obstacle:
    """Something that would stop a dump.

    Args:
        cause: as the bridge's table of known causes calls it.
        message: what it is.
        hint: what to do.
        pid: of the process, 0 where it concerns none.
    """

    __slots__ = ("cause", "hint", "message", "pid")

    def __init__(self, cause: str, message: str, hint: str = "", pid: int = 0) -> None:
        self.cause = cause
        self.message = message
        self.hint = hint
        self.pid = pid

    def as_dict(self) -> "dict[str, str | int]":
        """For scripts."""
        return {"cause": self.cause, "pid": self.pid, "message": self.message, "hint": self.hint}

    def text(self) -> str:
        """For a person."""
        who = f"process {self.pid}: " if self.pid else ""
        return f"{who}{self.message}" + (f"; {self.hint}" if self.hint else "")


def check(runtime: Runtime, container_id: str, options: CheckpointOptions) -> "list[Obstacle]":
    """Looks at a container.

    Args:
        options: as they would be given for the checkpoint.

    Raises:
        WrongState: it is neither running nor paused.
    """
    container = containers.load(runtime, container_id)
    status = container.status()
    if status not in (containers.RUNNING, containers.PAUSED):
        raise WrongState(f"Container cannot be checkpointed in {status} state")
    found = [*check_criu(runtime, options)]
    pids = container.cgroups.pids() or [container.pid]
    look = Look(container.config, pids, options)
    for pid in pids:
        found += look.process(pid)
    found += look.sockets(container.pid)
    found += look.locks()
    found += look.mounts(container)
    return found


def check_criu(runtime: Runtime, options: CheckpointOptions) -> "Iterator[Obstacle]":
    """CRIU itself, and what the kernel must have for what is asked."""
    try:
        criu.ask(runtime, "version")
        features = criu.ask(runtime, "features")["features"]
    except CtrError as error:
        yield Obstacle("criu", str(error), error.hint)
        return
    if (options.pre_dump or options.parent_path) and not features.get("mem_track"):
        flag = "--pre-dump" if options.pre_dump else "--parent-path"
        yield Obstacle("memory-tracking", "the kernel has no soft-dirty page tracking", f"leave {flag} out")
    if "lazy_pages" in options.flags and not features.get("lazy_pages"):
        yield Obstacle("userfaultfd", "the kernel does not allow userfaultfd", "leave --lazy-pages out")


class Look:
    """A look at the processes.

    Args:
        config: the container's.
        pids: its processes.
        options: of the checkpoint to be.
    """

    def __init__(self, config: "Config", pids: "list[int]", options: CheckpointOptions) -> None:
        self.config = config
        self.pids = pids
        self.flags = options.flags
        self.ghost_limit = options.ghost_limit or GHOST_LIMIT
        self.inodes: dict[int, int] = {}

    def process(self, pid: int) -> "Iterator[Obstacle]":
        """The open and mapped files of one process; it may end meanwhile."""
        try:
            inside = set(criu_mounts.mount_points(pid))
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            return
        for name in names:
            path = f"/proc/{pid}/fd/{name}"
            try:
                target = os.readlink(path)
                status = os.stat(path)
                mount = criu_mounts.mount_id(pid, name)
            except OSError:
                continue
            yield from self.file(pid, f"fd {name}", target, status, mount in inside)
        yield from self.mappings(pid)

    def file(self, pid: int, what: str, target: str, status: os.stat_result, inside: bool) -> "Iterator[Obstacle]":
        """One open file."""
        if stat.S_ISSOCK(status.st_mode):
            self.inodes[status.st_ino] = pid
        elif target.startswith("anon_inode:"):
            kind = target.partition(":")[2].strip("[]")
            if kind in UNSUPPORTED_ANONYMOUS:
                yield Obstacle("anonymous-inode", f"{what} is {target}, which CRIU can't save", pid=pid)
        elif not target.startswith("/"):
            return
        elif stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in TTY_MAJORS and not inside:
            if "shell_job" not in self.flags:
                yield Obstacle("terminal", f"{what} is a terminal outside of it: {target}", "use --shell-job", pid)
        elif not inside:
            hint = "start the container with pipes or /dev/null for it"
            yield Obstacle("file-outside", f"{what} is a file outside of the container: {target}", hint, pid)
        elif target.endswith(DELETED):
            yield from self.deleted(pid, what, target, status)

    def deleted(self, pid: int, what: str, target: str, status: os.stat_result) -> "Iterator[Obstacle]":
        """A file that has lost the name that it was opened by."""
        name = target.removesuffix(DELETED)
        if status.st_nlink and "link_remap" not in self.flags:
            yield Obstacle("deleted-file", f"{what} is deleted and has another name: {name}", "use --link-remap", pid)
        elif not status.st_nlink and stat.S_ISREG(status.st_mode) and status.st_size > self.ghost_limit:
            message = f"{what} is deleted and has {status.st_size} bytes: {name}"
            yield Obstacle("ghost-limit", message, f"raise --ghost-limit, which is {self.ghost_limit}", pid)

    def mappings(self, pid: int) -> "Iterator[Obstacle]":
        """Deleted files that are mapped."""
        directory = f"/proc/{pid}/map_files"
        try:
            names = os.listdir(directory)
        except OSError:
            return
        told = set()
        for name in names:
            try:
                target = os.readlink(f"{directory}/{name}")
                if target in told or not target.endswith(DELETED) or not target.startswith("/"):
                    continue
                status = os.stat(f"{directory}/{name}")
            except OSError:
                continue
            told.add(target)
            # Shared memory and memfds are files without a name, too, and CRIU knows them well.
            if not target.startswith(("/dev/zero", "/SYSV", "/memfd:")):
                yield from self.deleted(pid, "a mapped file", target, status)

    def sockets(self, init: int) -> "Iterator[Obstacle]":
        """Connections to the outside; after all processes were looked at.

        Args:
            init: pid of the init process.
        """
        for inode, state, queue in sockets.tcp(init):
            pid = self.inodes.get(inode)
            if pid is None:
                continue
            if state in sockets.ESTABLISHED_STATES and not {"tcp_established", "tcp_close"} & set(self.flags):
                hint = "use --tcp-established to keep it, or --tcp-close to give it up"
                yield Obstacle("tcp", "an established TCP connection", hint, pid)
            elif state == sockets.LISTEN and queue and "tcp_skip_in_flight" not in self.flags:
                message = "a TCP connection that it has not accepted yet"
                yield Obstacle("tcp-in-flight", message, "use --tcp-skip-in-flight", pid)
        if "ext_unix_sk" in self.flags:
            return
        for inode, peer in sockets.unix_peers(init).items():
            pid = self.inodes.get(inode)
            if pid is not None and peer not in self.inodes:
                message = f"unix socket {inode} is connected to outside of the container"
                yield Obstacle("external-unix-socket", message, "use --ext-unix-sk", pid)

    def locks(self) -> "Iterator[Obstacle]":
        """File locks (proc(5), /proc/locks)."""
        if "file_locks" in self.flags:
            return
        told = set()
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            for line in lines:
                words = line.split()
                holder = words[4] if words[1] != "->" else ""
                if holder.isdigit() and int(holder) in self.pids and holder not in told:
                    told.add(holder)
                    yield Obstacle("file-locks", "holds a file lock", "use --file-locks", int(holder))

    def mounts(self, container: containers.Container) -> "Iterator[Obstacle]":
        """Mounts that are neither from outside nor of a type that CRIU can make again."""
        state = container.state
        known = criu_mounts.to_dump(self.config, state.get("bundle", ""), state.get("cgroup_paths", {}), container.pid)
        outside = {point for point, _ in known}
        with open(f"/proc/{container.pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                words = line.split()
                point, kind = criu_mounts.unescape(words[4]), words[words.index("-") + 1]
                if point != "/" and point not in outside and kind.partition(".")[0] in UNSUPPORTED_MOUNTS:
                    hint = "unmount it, or bind it from outside in config.json"
                    yield Obstacle("mount-unsupported", f"{point} is a mount of type {kind}", hint)
