"""`restore`: a container of this bundle whose processes come from a folder of images, by CRIU.

Mounts, devices, hooks, annotations and limits are the bundle's; of the images nothing but the processes is taken.
"""

import os

from ctr_common.channel import Channel
from ctr_common.errors import ConfigError, CriuError, NotSupported
from ctr_common.fd import Fd
from ctr_common.folders import open_folder
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET, PR_SET_CHILD_SUBREAPER
from ctr_common.spec import load, namespaces, validate
from ctr_common.state import StateDir
from ctr_supervisor.cgroups.hierarchies import parse_proc_cgroup
from ctr_supervisor.engine import create, criu, criu_images, criu_mounts, criu_options, handover, launch
from ctr_supervisor.engine.checkpoint import EXTERNAL_NAMESPACES
from ctr_supervisor.engine.criu_options import RestoreOptions
from ctr_supervisor.engine.options import CreateOptions, check_terminal
from ctr_supervisor.engine.run import DETACHED, destroy
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.process.parent import Parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ctr_common.spec.types import Config

ROOT_DIRECTORY = "criu-root"
SIGKILL = 9
# Names under which external namespaces stand in the images, as runc has them.
NAMESPACE_KEYS = {"net": "extRootNetNS", "pid": "extRootPidNS"}


def restore(
    runtime: Runtime,
    container_id: str,
    bundle: str,
    options: CreateOptions,
    criu_flags: RestoreOptions,
    *,
    detach: bool = False,
    no_subreaper: bool = False,
    progress: "Callable[[str, int], None] | None" = None,
    on_restored: "Callable[[dict[str, Any]], None] | None" = None,
) -> int:
    """Restores a container.

    Args:
        options: as of a creation: console socket, pid file.
        criu_flags: where the images are, and how to take them.
        detach: return once it runs.
        no_subreaper: don't adopt the container's orphans.
        progress: is told of phases.
        on_restored: gets what the bridge says in the end: CRIU's figures as `stats`, `pid`, `criu_version`.

    Returns:
        The container's exit status (128 + n for signal n), 0 when detached.

    Raises:
        CtrError: anything before it ran; nothing is left then.
    """
    options.detach = detach
    if type(runtime.parent) is not Parent:
        raise NotSupported("a container can't be restored on behalf of another process")
    foreground = None if detach else runtime.parent.foreground(subreaper=not no_subreaper)
    restoration = prepare(runtime, container_id, bundle, options, criu_flags, progress)
    try:
        created = restoration.restore(adopt=not detach, stay=not no_subreaper)
    except BaseException:
        restoration.undo()
        raise
    container = created.container
    try:
        container.directory.unlock()
        if on_restored is not None:
            on_restored(restoration.result)
        status = DETACHED
        if foreground is not None:
            status = foreground.attend(created.launched, created.console_master) or 0
    except BaseException:
        created.launched.kill()
        created.close()
        destroy(container)
        raise
    created.close()
    if foreground is not None:
        destroy(container)
    return status


def prepare(
    runtime: Runtime,
    container_id: str,
    bundle: str,
    options: CreateOptions,
    criu_flags: RestoreOptions,
    progress: "Callable[[str, int], None] | None" = None,
) -> "Restoration":
    """Takes the id; arguments and errors as of `restore`."""
    validate.validate_id(container_id)
    bundle = os.path.abspath(bundle)
    config = load.load_config(bundle)
    process = config.get("process")
    if process is None:
        raise ConfigError("process property must not be empty", json_path=".process")
    check_terminal(process, options)
    for warning in validate.check(config, bundle, rootless=runtime.rootless_euid):
        runtime.warn(warning)
    if runtime.rootless_euid:
        runtime.warn("ctrun restore is untested with rootless containers")
    if options.networks:
        from ctr_supervisor.network.config import check

        options.networks = check(options.networks, config)
    # Before anything is made: most failures are a wrong path.
    criu_images.open_images(criu_flags.image_path).close()
    directory = StateDir(runtime.root, container_id)
    directory.make()
    return Restoration(runtime, directory, config, bundle, options, criu_flags, progress)


class Restoration(create.Creation, criu.Listener):
    """A restore under way: a creation whose process comes from CRIU.

    Attributes:
        result: what the bridge said in the end.
        criu_pid: of CRIU while it works.
    """

    def __init__(
        self,
        runtime: Runtime,
        directory: StateDir,
        config: "Config",
        bundle: str,
        options: CreateOptions,
        criu_flags: RestoreOptions,
        progress: "Callable[[str, int], None] | None",
    ) -> None:
        super().__init__(runtime, directory, config, bundle, options)
        self.criu_flags = criu_flags
        self.report = progress
        self.result: dict[str, Any] = {}
        self.criu_pid = 0

    def restore(self, *, adopt: bool, stay: bool = True) -> create.Created:
        """All of it, in order.

        Args:
            adopt: the restored process becomes this process's child, not that of the caller's subreaper.
            stay: adopt its orphans, too.
        """
        # It gets ready while we prepare everything else.
        with Adoption(adopt, stay), criu.Bridge(self.runtime) as bridge:
            self.restore_by(bridge)
        assert self.launched is not None
        self.record_prepared()
        handover.announce(self.options, self.launched)
        return create.Created(self.container, self.launched, self.console_master, None)

    def restore_by(self, bridge: criu.Bridge) -> None:
        """Everything up to the running process."""
        directory = self.container.directory
        self.record_intent()
        self.make_cgroups()
        root = directory.file(ROOT_DIRECTORY)
        os.mkdir(root, 0o700)
        criu_mounts.make_mount_points(self.config, self.rootfs, self.bundle)
        work_path = self.criu_flags.work_path or directory.file(criu_options.WORK_DIRECTORY)
        criu_options.make_folder(work_path, "work path")
        owned = [criu_images.open_images(self.criu_flags.image_path)]
        try:
            owned.append(open_folder(work_path, "work path"))
            fds = {"images": owned[0].fileno(), "work": owned[1].fileno()}
            wishes = self.wishes(owned[0], fds, owned)
            with bridge.request(
                "restore",
                self,
                fds,
                wishes=wishes,
                rootfs=self.rootfs,
                root=os.path.realpath(root),
                # What is in the state directory is gone when this has failed: no error shall send anybody there.
                work_path=self.criu_flags.work_path,
                work_dir=os.path.realpath(work_path),
                progress=self.report is not None,
            ) as result:
                self.result = {key: value for key, value in result.body.items() if key not in ("type", "fds")}
            if self.launched is None:
                self.record_restored(self.result.get("pid", 0))
        finally:
            for fd in owned:
                fd.close()
            bridge.close()
        os.rmdir(root)

    def wishes(self, images: Fd, fds: "dict[str, int]", owned: "list[Fd]") -> "dict[str, Any]":
        """What CRIU is to know.

        Args:
            fds: those of the request; namespaces are added.
            owned: what is to be closed in the end; the same.
        """
        assert self.cgroups is not None
        wishes = self.criu_flags.wishes()
        wishes["evasive_devices"] = True
        wishes["external_mounts"] = criu_mounts.to_restore(self.config, self.bundle, self.cgroups.paths)
        inherit = criu_images.inherited_pipes(images)
        for kind, name in EXTERNAL_NAMESPACES:
            path = namespaces.path_of(self.config, kind)
            if path:
                owned.append(open_namespace(path, kind))
                fds[name] = owned[-1].fileno()
                inherit.append([NAMESPACE_KEYS[name], name])
        wishes["inherit"] = inherit
        if self.options.networks and not self.criu_flags.empty_ns & CLONE_NEWNET:
            from ctr_supervisor.network import networks

            wishes["veths"] = [list(pair) for pair in networks.veth_pairs(self.options.networks)]
        configured = criu_options.config_file(self.config)
        if configured:
            wishes["config_file"] = configured
        if self.criu_flags.lsm_profile:
            wishes["lsm_profile"] = self.criu_flags.lsm_profile
        if self.criu_flags.lsm_mount_context:
            wishes["lsm_mount_context"] = self.criu_flags.lsm_mount_context
        return wishes

    def started(self, pid: int) -> "list[tuple[str, str]]":
        """CRIU goes into the container's cgroups, and what it forks is born there."""
        assert self.cgroups is not None
        self.criu_pid = pid
        self.cgroups.apply(pid)
        from ctr_supervisor.cgroups import manager

        self.container.state.update(manager.state_of(self.cgroups))
        self.container.directory.save(self.container.state)
        return list(parse_proc_cgroup(pid).items())

    def notified(self, script: str, pid: int, master: Fd) -> None:
        """CRIU's notifications during a restore."""
        if script == "setup-namespaces":
            self.record_restored(pid)
            self.run_runtime_hooks()
        elif script == "post-restore":
            self.record_restored(pid)
        elif script == "pre-resume" and self.criu_flags.lsm_profile:
            self.check_profile()
        elif script == "orphan-pts-master":
            self.take_console(master.take())
        elif script == "network-unlock" and self.options.networks:
            from ctr_supervisor.network import networks

            self.container.state["networks"] = networks.attach(self.options.networks)
            self.container.directory.save(self.container.state)

    def check_profile(self) -> None:
        """Makes sure of --lsm-profile while the processes are still held; CRIU lets them go in any case from here on.

        Raises:
            CriuError: one is under another profile; they are ended.
        """
        from ctr_supervisor.engine import criu_lsm

        assert self.launched is not None
        try:
            criu_lsm.check(self.criu_flags.lsm_profile, self.launched.pid)
        except BaseException:
            self.kill_held(self.launched)
            raise

    def kill_held(self, launched: launch.Launched) -> None:
        """Ends processes that CRIU traces, and CRIU with them.

        The end of a pid namespace waits until all in it are reaped, those that are traced by their tracer first; CRIU
        meanwhile waits for the namespace's init alone, and neither would ever end.
        """
        assert self.cgroups is not None
        try:
            # first, for CRIU's end lets go of those that live
            _kernel.pidfd_send_signal(launched.pidfd.fileno(), SIGKILL)
        except ProcessLookupError:
            pass
        self.cgroups.kill(SIGKILL)
        try:
            # It is in those cgroups, where there are any. The bridge, who is to reap it, waits for our answer.
            os.kill(self.criu_pid, SIGKILL)
        except ProcessLookupError:
            pass

    def record_restored(self, pid: int) -> None:
        """Writes down the process; done once, from the first notification that tells its pid."""
        if self.launched is None:
            try:
                pidfd = Fd(_kernel.pidfd_open(pid))
            except OSError:
                raise CriuError(f"restored process {pid} vanished") from None
            self.launched = launch.Launched(self.runtime.parent, pid, pidfd, Channel(-1, "restored process"), True)
            self.record_process(self.launched)
            if self.rdt is not None:
                from ctr_supervisor.engine import rdt

                rdt.apply(self.rdt, pid, self.linux["intelRdt"])

    def progressed(self, phase: str, size: int) -> None:
        """Passes progress on."""
        if self.report is not None:
            self.report(phase, size)


class Adoption:
    """While it lasts, what the bridge leaves behind becomes this process's child, if that is wanted.

    Args:
        wanted: else it becomes the child of the caller's subreaper.
        stay: go on adopting afterwards.
    """

    def __init__(self, wanted: bool, stay: bool) -> None:
        self.wanted = wanted
        self.stay = stay

    def __enter__(self) -> None:
        if self.wanted:
            _kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def __exit__(self, *_: object) -> None:
        if self.wanted and not self.stay:
            _kernel.prctl(PR_SET_CHILD_SUBREAPER, 0)


def open_namespace(path: str, kind: str) -> Fd:
    """A namespace that the configuration names, for CRIU to restore into.

    Raises:
        CriuError: it is gone.
    """
    try:
        return Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise CriuError(
            f"the {kind} namespace that the container is restored into must exist",
            path=path,
            errno=error.errno or 0,
            hint="make it again, or change its path in config.json",
        ) from None
