"""`checkpoint`: a running container into a folder of images, by CRIU; the container ends, or goes on as it was."""

import os

from ctr_common import fastjson
from ctr_common.errors import CtrError, WrongState
from ctr_common.fd import Fd
from ctr_common.folders import open_folder, without_symlinks
from ctr_common.spec import namespaces
from ctr_supervisor.cgroups import manager as cgroups
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import criu, criu_mounts, criu_options, delete, idmaps
from ctr_supervisor.engine.criu_options import CheckpointOptions
from ctr_supervisor.engine.launch import KILL_TIMEOUT, poll_readable
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Type in config.json, name in /proc/PID/ns, of namespaces that CRIU can leave alone.
EXTERNAL_NAMESPACES = (("network", "net"), ("pid", "pid"))


def checkpoint(
    runtime: Runtime,
    container_id: str,
    options: CheckpointOptions,
    progress: "Callable[[str, int], None] | None" = None,
) -> "dict[str, Any]":
    """Dumps a container; unless it is left running, nothing of it stays but the images.

    Args:
        progress: is told of phases and bytes written.

    Returns:
        what the bridge says: CRIU's figures as `stats`, `bytes`, `criu_version`.

    Raises:
        WrongState: it is neither running nor paused.
        CriuError: CRIU could not; the container goes on as before.
    """
    container = containers.load(runtime, container_id)
    directory = container.directory
    directory.lock()
    try:
        container.refresh()
        status = container.status()
        if status not in (containers.RUNNING, containers.PAUSED):
            raise WrongState(f"Container cannot be checkpointed in {status} state")
        if runtime.rootless_euid:
            runtime.warn("ctrun checkpoint is untested with rootless containers")
        result = Checkpoint(container, options, progress).run(was_paused=status == containers.PAUSED)
        if options.pre_dump or "leave_running" in options.flags:
            return result
        finish(container)
    finally:
        directory.unlock()
    return result


def finish(container: containers.Container) -> None:
    """Removes what is left of a container whose processes CRIU has ended."""
    pidfd = container.open_pidfd()
    if pidfd is not None:
        with Fd(pidfd):
            if not poll_readable(pidfd, KILL_TIMEOUT):
                raise CtrError(f"process {container.pid} still runs after its checkpoint")
    delete.destroy(container)


class Checkpoint(criu.Listener):
    """A dump under way.

    Args:
        container: its lock is held.
        progress: is told of phases and bytes written.
    """

    def __init__(
        self,
        container: containers.Container,
        options: CheckpointOptions,
        progress: "Callable[[str, int], None] | None",
    ) -> None:
        self.container = container
        self.options = options
        self.progress = progress
        self.network_locked = False

    def run(self, *, was_paused: bool) -> "dict[str, Any]":
        """All of it; the container is as it was if it fails.

        Args:
            was_paused: it is frozen by somebody else than CRIU.
        """
        # It gets ready while we look at the container.
        with criu.Bridge(self.container.runtime) as bridge:
            return self.run_by(bridge, was_paused=was_paused)

    def run_by(self, bridge: criu.Bridge, *, was_paused: bool) -> "dict[str, Any]":
        """The same by that bridge."""
        options = self.options
        container = self.container
        work_path = options.work_path or container.directory.file(criu_options.WORK_DIRECTORY)
        # CRIU opens images as the container's root, too, which in a user namespace is an ordinary user.
        _, group = idmaps.host_root(container.config.get("linux") or {})
        criu_options.make_folder(options.image_path, "image path", group)
        criu_options.make_folder(work_path, "work path")
        # Whoever else can write there must not lead CRIU's log to another file.
        with (
            open_folder(options.image_path, "image path") as named,
            without_symlinks(open_folder(work_path, "work path")) as work,
        ):
            # The link to the parent's images is CRIU's own to make and follow; else there is none in a good folder.
            images = named if options.parent_path else without_symlinks(Fd(os.dup(named.fileno())))
            try:
                self.write_descriptors(images)
                fds = {"images": images.fileno(), "work": work.fileno()}
                if options.status_fd >= 0:
                    fds["status"] = options.status_fd
                try:
                    return self.ask(bridge, fds, work_path)
                except BaseException:
                    # not beside a CRIU that undoes things itself
                    bridge.close()
                    self.put_back(was_paused=was_paused)
                    raise
            finally:
                if images is not named:
                    images.close()

    def ask(self, bridge: criu.Bridge, fds: "dict[str, int]", work_path: str) -> "dict[str, Any]":
        """Has the bridge do it."""
        verb = "pre-dump" if self.options.pre_dump else "dump"
        progress = self.progress is not None
        with bridge.request(verb, self, fds, wishes=self.wishes(), work_path=work_path, progress=progress) as result:
            return {key: value for key, value in result.body.items() if key not in ("type", "fds", "pid")}

    def wishes(self) -> "dict[str, Any]":
        """What CRIU is to know."""
        container, options = self.container, self.options
        config = container.config
        wishes = options.wishes()
        wishes["pid"] = container.pid
        wishes["root"] = container.state.get("rootfs", "")
        freezer, unified = freezer_of(container)
        if freezer:
            wishes.update(freeze_cgroup=freezer, freeze_cgroup_v2=unified)
        wishes["cgroup_controllers"] = controllers_of(container)
        if options.page_server is not None:
            wishes["page_server"] = list(options.page_server)
        if options.parent_path:
            wishes.update(parent_img=options.parent_path, track_mem=True)
        if options.ghost_limit:
            wishes["ghost_limit"] = options.ghost_limit
        configured = criu_options.config_file(config)
        if configured:
            wishes["config_file"] = configured
        wishes["external_namespaces"] = external_namespaces(container)
        if not options.pre_dump:
            wishes["external_mounts"] = criu_mounts.to_dump(
                config, container.state.get("bundle", ""), container.state.get("cgroup_paths", {}), container.pid
            )
        return wishes

    def write_descriptors(self, images: Fd) -> None:
        """Writes down what stdin, stdout and stderr are, for a restore to connect its own in their place."""
        if self.options.pre_dump:
            return
        data = fastjson.dumps(self.container.state.get("external_descriptors", [])).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with Fd(os.open(criu_options.DESCRIPTORS_FILE, flags, 0o600, dir_fd=images.fileno())) as file:
                os.write(file.fileno(), data)
        except OSError as error:
            path = f"{self.options.image_path}/{criu_options.DESCRIPTORS_FILE}"
            raise CtrError("cannot write", path=path, errno=error.errno or 0) from None

    def notified(self, script: str, pid: int, master: Fd) -> None:
        """CRIU's notifications during a dump."""
        if script == "post-dump":
            if not self.options.pre_dump and "leave_running" not in self.options.flags:
                self.container.directory.write(criu_options.MARKER, b"")
        elif script == "network-lock":
            self.network_locked = True
            self.switch_networks(attach=False)
        elif script == "network-unlock":
            self.network_locked = False
            self.switch_networks(attach=True)
        elif script == "status-ready" and self.options.status_fd >= 0:
            try:
                os.write(self.options.status_fd, b"\0")
            except OSError as error:
                raise CtrError.from_os_error(error, step="writing to --status-fd") from None

    def switch_networks(self, *, attach: bool) -> None:
        """Takes the host's ends of our networks out of their bridges, or puts them back."""
        made = self.container.state.get("networks")
        if made:
            from ctr_supervisor.network import networks

            if attach:
                networks.attach(made)
            else:
                networks.detach(made)

    def progressed(self, phase: str, size: int) -> None:
        """Passes progress on."""
        if self.progress is not None:
            self.progress(phase, size)

    def put_back(self, *, was_paused: bool) -> None:
        """Undoes what a CRIU that died could not undo itself; where it did, this changes nothing."""
        runtime = self.container.runtime
        try:
            os.unlink(self.container.directory.file(criu_options.MARKER))
        except FileNotFoundError:
            pass
        try:
            if not was_paused and self.container.cgroups.frozen():
                self.container.cgroups.thaw()
            if self.network_locked:
                self.switch_networks(attach=True)
                from ctr_supervisor.engine import criu_network

                criu_network.unlock(self.container.pid)
        except CtrError as error:
            runtime.ignore(error)


def freezer_of(container: containers.Container) -> "tuple[str, bool]":
    """The cgroup that CRIU freezes the container with, "" for none; and whether it is one of v2."""
    paths: dict[str, str] = container.state.get("cgroup_paths", {})
    if "freezer" in paths:
        return paths["freezer"], False
    if cgroups.hierarchies().mode == "unified" and paths.get(""):
        return paths[""], True
    return "", False


def controllers_of(container: containers.Container) -> "list[str]":
    """The hierarchies that the container has cgroups of its own in, by their controllers as /proc/PID/cgroup has them.

    In any other it is in a cgroup that is not its own, below which are those of others. CRIU would write these down,
    and make each of them that has gone by then again at the restore.
    """
    own = container.state.get("cgroup_paths", {})
    path = f"/proc/{container.pid}/cgroup"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            names = [line.split(":", 2)[1] for line in lines]
    except OSError as error:
        raise CtrError("cannot read", path=path, errno=error.errno or 0) from None
    return [name for name in names if any(part in own for part in name.split(","))]


def external_namespaces(container: containers.Container) -> "list[list[Any]]":
    """Kind and inode of the namespaces that the configuration joins by a path: CRIU leaves these alone."""
    found: list[list[Any]] = []
    for kind, name in EXTERNAL_NAMESPACES:
        path = namespaces.path_of(container.config, kind)
        if path:
            try:
                found.append([name, os.stat(path).st_ino])
            except OSError:
                # Its name may be gone while the container still lives in it.
                found.append([name, os.stat(f"/proc/{container.pid}/ns/{name}").st_ino])
    return found
