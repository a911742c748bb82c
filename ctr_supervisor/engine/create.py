"""`create`: from a bundle to a container process that waits in exec.fifo.

The story of a container's start, told by the engine; what happens inside is told by ctr_init/steps.py (namespaces) and
c/nsexec/process.c (the process itself).
"""

import os
import time

from ctr_common import fastjson, hooks, trace
from ctr_common.bootstrap import boolean, text, u32
from ctr_common.errors import ConfigError, CtrError, InitError, ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
)
from ctr_common.spec import load, namespaces, validate
from ctr_common.state import CONFIG_FILE, FIFO_FILE, StateDir
from ctr_supervisor.cgroups import manager as cgroups
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import handover, idmaps, launch, settings
from ctr_supervisor.engine.options import CreateOptions, check_terminal
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.process import console, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.channel import Channel, Message
    from ctr_common.spec.types import Config, Process
    from ctr_init.inside import Home
    from ctr_init.plan import SetupPlan
    from ctr_init.worker import Worker
    from ctr_supervisor.engine.rdt import Group
    from ctr_supervisor.engine.settings import Attributes
    from ctr_supervisor.network.devices import MovedDevices
    from ctr_supervisor.process.notify import NotifySocket

# A hostile FUSE or network mount can hang a mount call; no start hangs with it for ever.
WORKER_TIMEOUT = 300.0


class Created:
    """A created container, still in the hands of its creator.

    Attributes:
        container: state, config, cgroups; its lock is held here.
        launched: the process, this process's child.
        console_master: of a terminal that stays in the foreground, else closed.
        notify: the container's notify socket, if the caller's NOTIFY_SOCKET asks for one.
    """

    __slots__ = ("console_master", "container", "launched", "notify")

    def __init__(
        self,
        container: containers.Container,
        launched: launch.Launched,
        console_master: Fd,
        notify: "NotifySocket | None",
    ) -> None:
        self.container = container
        self.launched = launched
        self.console_master = console_master
        self.notify = notify

    def close(self) -> None:
        """Lets go of it; the container goes on."""
        self.console_master.close()
        self.launched.close()
        self.container.directory.unlock()


def create(runtime: Runtime, container_id: str, bundle: str, options: CreateOptions) -> None:
    """Creates a container and leaves it waiting for `start`.

    Args:
        container_id: not in use under this root.
        bundle: directory with config.json.

    Raises:
        CtrError: anything; nothing of the container is left then.
    """
    options.detach = True
    make(runtime, container_id, bundle, options).close()


def make(
    runtime: Runtime, container_id: str, bundle: str, options: CreateOptions, config: "Config | None" = None
) -> Created:
    """Creates a container and keeps hold of it; see `create`.

    Args:
        config: from `load.config_of`; None to read the bundle's. With it and without a bundle, root.path is absolute.
    """
    validate.validate_id(container_id)
    if config is None:
        bundle = os.path.abspath(bundle)
        with trace.span("load config"):
            config = load.load_config(bundle)
    elif not bundle:
        # Hooks and readers of the state are promised a bundle (runtime-spec, "State"); this is as near as it gets.
        bundle = os.path.dirname((config.get("root") or {}).get("path", ""))
        if not bundle.startswith("/"):
            raise ConfigError("must be absolute where there is no bundle", json_path=".root.path")
    process = config.get("process")
    if process is None:
        raise ConfigError("process property must not be empty", json_path=".process")
    check_terminal(process, options)
    if options.preserve_fds + options.listen_fds:
        runtime.parent.check_preserved_fds(options.preserve_fds + options.listen_fds)
    with trace.span("validate config"):
        for warning in validate.check(config, bundle, rootless=runtime.rootless_euid):
            runtime.warn(warning)
    if options.networks:
        from ctr_supervisor.network.config import check

        options.networks = check(options.networks, config)
    directory = StateDir(runtime.root, container_id)
    directory.make()
    creation = Creation(runtime, directory, config, bundle, options)
    try:
        return creation.run()
    except BaseException:
        creation.undo()
        raise


class Creation:
    """One creation under way; `run` goes forward, `undo` takes back whatever there is by then."""

    def __init__(
        self, runtime: Runtime, directory: StateDir, config: "Config", bundle: str, options: CreateOptions
    ) -> None:
        self.runtime = runtime
        self.config = config
        self.process: Process = config["process"]
        self.linux = config.get("linux") or {}
        self.bundle = bundle
        self.options = options
        self.rootfs = validate.rootfs_path(config, bundle)
        self.container = containers.Container(runtime, directory, {}, config)
        self.stage0: launch.Stage0 | None = None
        self.launched: launch.Launched | None = None
        self.setup_plan: SetupPlan | None = None
        self.way_home: Home | None = None
        self.settings: Attributes = []
        self.worker: Worker | None = None
        self.cgroups: cgroups.Manager | None = None
        self.console_master = Fd(-1)
        self.console_slave = Fd(-1)
        self.hooks_have_run = False
        self.notify: NotifySocket | None = None
        self.rdt: Group | None = None
        self.net_devices: MovedDevices | None = None

    def run(self) -> Created:
        """All of it, in order; what does not need the other process is done while that one works."""
        self.prepare_notify()
        self.stage0 = launch.Stage0.start(self.runtime.parent, self.options.preserve_fds + self.options.listen_fds)
        with trace.span("write state: intent"):
            self.record_intent()
        with trace.span("make cgroups, set limits"):
            self.make_cgroups()
        try:
            with trace.span("launch ctr-init, until there is a process"):
                launched = self.launch_process()
            self.runtime.note(f"container process {launched.pid} of {self.container.id}")
            with trace.span("cgroups of the process, late namespaces"):
                launched.go(self.place_in_cgroups(launched), meanwhile=lambda: self.record_process(launched))
            with trace.span("networks"):
                self.set_up_networks(launched)
            with trace.span("setup worker"):
                home = self.set_up_namespaces(launched)
            with trace.span("settings of the process, until it is prepared"):
                self.set_up_process(launched, home)
            with trace.span("reap worker"):
                self.reap_worker()
        except CtrError as error:
            raise self.explain(error).within(launch.CONTEXT) from None
        with trace.span("write state: prepared"):
            self.record_prepared()
        handover.announce(self.options, launched)
        if self.net_devices is not None:
            self.net_devices.close()
        return Created(self.container, launched, self.console_master, self.notify)

    def explain(self, error: CtrError) -> CtrError:
        """The failure, or what the kernel did to cause it."""
        if self.cgroups is not None and isinstance(error, ProtocolError):
            try:
                killed = self.cgroups.oom_kill_count()
            except CtrError:
                killed = 0
            if killed:
                return InitError(
                    "container init was OOM-killed (memory limit too low?)", json_path=".linux.resources.memory.limit"
                )
        return error

    def prepare_notify(self) -> None:
        """A notify socket of the container's own, where the caller has one."""
        if os.environ.get("NOTIFY_SOCKET"):
            from ctr_supervisor.process import notify

            self.notify = notify.from_environment(self.container.directory.file(notify.DIRECTORY))
            if self.notify is not None:
                self.notify.make_directory()
                self.notify.add_to(self.config)

    # -- state

    def record_intent(self) -> None:
        """Writes down what will be made, so that `delete` can unmake it if we are killed."""
        directory = self.container.directory
        directory.write(CONFIG_FILE, fastjson.dumps(self.config).encode())
        self.cgroups = cgroups.for_container(
            self.config,
            self.container.id,
            rootless_cgroups=self.runtime.rootless_cgroups,
            systemd=self.runtime.systemd_cgroup,
        )
        self.container.state = {
            "id": self.container.id,
            "init_process_pid": 0,
            "init_process_start": 0,
            "prepared": False,
            "created": utc_now(),
            "rootless": self.runtime.rootless_euid and self.runtime.rootless_cgroups,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "annotations": self.config.get("annotations") or {},
            "cgroup_paths": self.cgroups.paths,
            "namespace_paths": {},
            "external_descriptors": [],
            "new_keyring": not self.options.no_new_keyring,
        }
        if self.linux.get("intelRdt") is not None:
            from ctr_supervisor.engine import rdt

            self.rdt = rdt.plan(self.linux["intelRdt"], self.container.id)
            self.container.state.update(self.rdt.as_state())
        directory.save(self.container.state)

    def record_process(self, launched: launch.Launched) -> None:
        """Writes down the process; from here on hooks and other commands see the container."""
        with trace.span("write state: process"):
            found = status.read_stat(launched.pid)
            if found is None:
                raise CtrError(f"container process {launched.pid} vanished")
            assert self.cgroups is not None
            self.container.state.update(cgroups.state_of(self.cgroups))
            self.container.state.update(
                init_process_pid=launched.pid,
                init_process_start=found[1],
                namespace_paths=namespace_paths(launched.pid),
                external_descriptors=console.describe_stdio(),
            )
            if launched.parent.keeper:
                # Who reaps it knows how the container ended, also when there is no directory left to write that into.
                self.container.state["keeper_pid"] = launched.parent.keeper
            self.container.directory.save(self.container.state)

    def record_prepared(self) -> None:
        """Writes down that only `start` is missing."""
        self.container.state["prepared"] = True
        self.container.directory.save(self.container.state)

    # -- cgroups

    def make_cgroups(self) -> None:
        """Cgroups and their limits are there before the process is, so that it never runs outside of them."""
        assert self.cgroups is not None
        self.cgroups.create()
        self.cgroups.set(self.linux.get("resources") or {})

    def place_in_cgroups(self, launched: launch.Launched) -> "list[int]":
        """Moves the process into what it was not born in; returns fds of what it has to enter by itself."""
        assert self.cgroups is not None
        if self.rdt is not None:
            from ctr_supervisor.engine import rdt

            rdt.apply(self.rdt, launched.pid, self.linux["intelRdt"])
        entries = self.cgroups.entry_fds(launched.in_cgroup)
        if entries is None:
            self.cgroups.apply(launched.pid)
        return entries or []

    # -- networks

    def set_up_networks(self, launched: launch.Launched) -> None:
        """Networks and network devices are there before the first hook looks for them."""
        if self.options.networks:
            from ctr_supervisor.network import networks

            self.container.state["networks"] = networks.set_up(self.options.networks, launched.pid)
            self.container.directory.save(self.container.state)
        if self.linux.get("netDevices"):
            from ctr_supervisor.network import devices

            self.net_devices = devices.move_in(self.linux["netDevices"], launched.pid)

    # -- process

    def bootstrap(self) -> "Attributes":
        """What stage 0 is told."""
        config = self.config
        flags = namespaces.clone_flags(config)
        joined = [(kind, path) for kind in namespaces.NAMESPACES if (path := namespaces.path_of(config, kind))]
        attributes = launch.bootstrap_attributes(
            clone_flags=flags,
            join_paths=joined,
            user_namespace=any(kind == "user" for kind, _ in joined),
            rootless=self.runtime.rootless_euid,
        )
        if flags & CLONE_NEWUSER:
            attributes += idmaps.attributes(self.linux, rootless=self.runtime.rootless_euid)
        if self.process.get("oomScoreAdj") is not None:
            attributes.append((_kernel.ATTR_OOM_SCORE_ADJ, text(str(self.process["oomScoreAdj"]))))
        # The kernel refuses to be told of no offset at all.
        if flags & CLONE_NEWTIME and self.linux.get("timeOffsets"):
            attributes.append((_kernel.ATTR_TIME_OFFSETS, text(time_offsets(self.linux))))
        return attributes

    def launch_process(self) -> launch.Launched:
        """The process in its new namespaces, with its id maps."""
        assert self.cgroups is not None
        assert self.stage0 is not None
        attributes = self.bootstrap()
        cgroup = self.cgroups.clone_fd()
        stage0, self.stage0 = self.stage0, None
        try:
            self.launched = stage0.make_process(
                attributes,
                cgroup_fd=cgroup,
                meanwhile=self.prepare_setup,
                note=self.runtime.note if self.runtime.debug else None,
                status_directory=self.container.directory.path,
            )
        finally:
            if cgroup is not None:
                os.close(cgroup)
        return self.launched

    def prepare_setup(self) -> None:
        """All that the setup needs and that can be had before there is a process."""
        with trace.span("import what the setup worker needs"):
            import_worker()
        from ctr_init import inside

        with trace.span("prepare the setup"):
            self.setup_plan = self.plan(0, -1)
            self.way_home = inside.way_home(self.runtime.parent.home, self.setup_plan)
            self.settings = self.process_settings()
            self.container.directory.make_fifo(*idmaps.host_root(self.linux))

    def process_settings(self) -> "Attributes":
        """What the container process is told to set for itself, apart from its home and from what comes with fds."""
        attributes = settings.process_attributes(with_listen_fds(self.process, self.options), self.config)
        attributes.append((_kernel.ATTR_NEW_SESSION, boolean(True)))
        preserved = self.options.preserve_fds + self.options.listen_fds
        if preserved:
            attributes.append((_kernel.ATTR_PRESERVE_FDS, u32(preserved)))
        if not self.options.no_new_keyring:
            attributes.append((_kernel.ATTR_KEYRING, text(f"_ses.{self.container.id}")))
            if self.process.get("selinuxLabel"):
                attributes.append((_kernel.ATTR_KEYRING_LABEL, text(self.process["selinuxLabel"])))
        seccomp = self.linux.get("seccomp")
        if seccomp:
            with trace.span("seccomp filter"):
                from ctr_supervisor.engine.seccomp import compile_filter

                attributes += settings.seccomp_attributes(compile_filter(seccomp, cache_dir=self.runtime.seccomp_cache))
        return attributes

    def hook_settings(self, process: "Attributes") -> "Attributes":
        """The startContainer hooks.

        Args:
            process: all that the process itself is told.
        """
        hook_list = (self.config.get("hooks") or {}).get("startContainer") or []
        if not hook_list:
            return []
        state = fastjson.dumps(self.container.oci_state(containers.CREATED, pid=1)).encode()
        return settings.hook_attributes(hook_list, state, process)

    def set_up_process(self, launched: launch.Launched, home: "str | None") -> None:
        """Hands over everything that the process does to itself."""
        attributes = [*self.settings, *settings.home_attributes(self.process, home)]
        attributes += self.hook_settings(attributes)
        with Fd(os.open(self.container.directory.file(FIFO_FILE), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as fifo:
            fds = [fifo.fileno()]
            attributes.append((_kernel.ATTR_FIFO_FD, u32(0)))
            if self.console_slave.number >= 0:
                attributes.append((_kernel.ATTR_CONSOLE_SLAVE_FD, u32(len(fds))))
                fds.append(self.console_slave.fileno())
            elif self.process.get("terminal"):
                attributes.append((_kernel.ATTR_CONSOLE_ALLOCATE, boolean(True)))
            root = Fd(-1)
            if not namespaces.has(self.config, "mount"):
                root = Fd(os.open(self.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                attributes.append((_kernel.ATTR_ROOT_FD, u32(len(fds))))
                fds.append(root.fileno())
            with root:
                launched.send_settings(
                    attributes,
                    fds,
                    self.take_console,
                    lambda fd: handover.send_listener(self.container, fd, containers.CREATING, launched.pid),
                )
        self.console_slave.close()

    # -- setup worker

    def set_up_namespaces(self, launched: launch.Launched) -> "str | None":
        """Has the setup worker do everything that belongs to the namespaces.

        Returns:
            The home directory of the process's user, if the container's /etc/passwd knows it.
        """
        from ctr_common.channel import Channel
        from ctr_init import inside, worker

        plan, way_home = self.setup_plan, self.way_home
        assert plan is not None
        plan.pid, plan.pidfd = launched.pid, launched.pidfd.fileno()
        plan.state = self.container.oci_state(containers.CREATING)
        if way_home is not None:
            return inside.run(plan, way_home, self.run_runtime_hooks, self.take_terminal)
        with trace.span("fork worker"):
            self.worker = worker.start(plan)
        with Channel(self.worker.fd, "setup worker") as channel:
            while True:
                message = channel.expect(
                    _kernel.MSG_WORKER_HOOKS, _kernel.MSG_CONSOLE, _kernel.MSG_WORKER_DONE, timeout=WORKER_TIMEOUT
                )
                if message.type == _kernel.MSG_WORKER_DONE:
                    home = message.text(_kernel.ATTR_HOME)
                    message.close()
                    break
                self.answer_worker(channel, message)
        return home

    def worker_steps(self) -> "list[dict[str, str]]":
        """What the worker would do, without a process to do it for."""
        from ctr_init import worker

        return worker.describe(self.plan(0, -1))

    def plan(self, pid: int, pidfd: int) -> "SetupPlan":
        """What the worker has to know.

        Args:
            pid: of the process whose namespaces it sets up.
            pidfd: of the same.
        """
        from ctr_init.plan import SetupPlan

        assert self.cgroups is not None
        config = self.config
        join_flags = 0
        for kind, (flag, _) in namespaces.NAMESPACES.items():
            if namespaces.has(config, kind):
                join_flags |= flag
        size = self.process.get("consoleSize")
        return SetupPlan(
            config=config,
            bundle=self.bundle,
            rootfs=self.rootfs,
            container_id=self.container.id,
            state=self.container.oci_state(containers.CREATING),
            pidfd=pidfd,
            pid=pid,
            join_flags=join_flags,
            new_user_ns=bool(join_flags & CLONE_NEWUSER),
            cgroup_paths=self.cgroups.paths,
            cgroup_mode=cgroups.hierarchies().mode,
            own_cgroup_ns=bool(join_flags & CLONE_NEWCGROUP),
            no_pivot=self.options.no_pivot,
            rootless=self.runtime.rootless_euid,
            console=bool(self.process.get("terminal")) and bool(join_flags & CLONE_NEWNS),
            console_size=(size["width"], size["height"]) if size else None,
        )

    def answer_worker(self, channel: "Channel", message: "Message") -> None:
        """Does what the worker asked for."""
        try:
            if message.type == _kernel.MSG_WORKER_HOOKS:
                self.run_runtime_hooks()
            else:
                slave = message.take_fd(_kernel.ATTR_CONSOLE_SLAVE_FD)
                self.take_terminal(message.take_fd(_kernel.ATTR_CONSOLE_MASTER_FD), slave)
        finally:
            message.close()
        channel.send(_kernel.MSG_ACKNOWLEDGED)

    def run_runtime_hooks(self) -> None:
        """prestart, then createRuntime: the namespaces are there, nothing has been pivoted (config.md, "Hooks")."""
        self.hooks_have_run = True
        configured: dict[str, Any] = dict(self.config.get("hooks") or {})
        state = self.container.oci_state(containers.CREATING)
        hooks.run(configured.get("prestart") or (), state, "prestart")
        hooks.run(configured.get("createRuntime") or (), state, "createRuntime")

    def take_terminal(self, master: int, slave: int) -> None:
        """The pair that the setup allocated: the slave is for the process."""
        self.console_slave = Fd(slave)
        self.take_console(master)

    def take_console(self, master: int) -> None:
        """Where the master of the container's pty belongs."""
        self.console_master = handover.deliver_console(self.options, master)

    def reap_worker(self) -> None:
        """Waits for the worker's end; it has said its last word."""
        if self.worker is not None:
            pid, self.worker = self.worker.pid, None
            os.waitpid(pid, 0)

    def undo(self) -> None:
        """Leaves nothing: no worker, process, cgroup, state. Failures are told of and don't hide the first one."""
        if self.worker is not None:
            try:
                os.kill(self.worker.pid, 9)
            except ProcessLookupError:
                pass
            self.reap_worker()
        self.console_master.close()
        self.console_slave.close()
        if self.net_devices is not None:
            for failure in self.net_devices.give_back():
                self.runtime.ignore(failure)
        if self.stage0 is not None:
            self.stage0.abandon()
        if self.launched is not None:
            self.launched.kill()
            self.launched.close()
        try:
            if self.cgroups is not None:
                self.cgroups.destroy()
            if self.rdt is not None or "networks" in self.container.state:
                from ctr_supervisor.engine.delete import release

                release(self.container.state)
        except CtrError as error:
            self.runtime.ignore(error)
        try:
            self.container.directory.remove()
        except (CtrError, OSError) as error:
            self.runtime.ignore(error if isinstance(error, CtrError) else CtrError.from_os_error(error))
        poststop = (self.config.get("hooks") or {}).get("poststop")
        if self.hooks_have_run and poststop:
            state = self.container.oci_state(containers.STOPPED, pid=0)
            for failure in hooks.run_all_ignoring_failures(poststop, state, "poststop"):
                self.runtime.ignore(failure)


def import_worker() -> None:
    """Imports what the setup worker will need when it is forked: a third of all imports, which so cost no time."""
    from ctr_init import inside, plan, worker  # noqa: F401


def namespace_paths(pid: int) -> "dict[str, str]":
    """Paths of a process's namespaces under the names that readers of runc's state.json know (NEWNS, NEWNET)."""
    return {
        "NEWNS" if kind == "mount" else f"NEW{path.rpartition('/')[2].upper()}": path
        for kind, path in namespaces.paths_of_process(pid).items()
    }


def with_listen_fds(process: "Process", options: CreateOptions) -> "Process":
    """The process with the socket activation protocol passed on (sd_listen_fds(3)); pid 1 is the container's init."""
    if not options.listen_fds:
        return process
    changed = process.copy()
    changed["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={options.listen_fds}", "LISTEN_PID=1"]
    return changed


def time_offsets(linux: "Any") -> str:
    """`.linux.timeOffsets` as /proc/PID/timens_offsets takes it (time_namespaces(7))."""
    return "".join(
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in (linux.get("timeOffsets") or {}).items()
    )


def utc_now() -> str:
    """The time as Go prints it: RFC 3339, nanoseconds, UTC."""
    now = time.time_ns()
    seconds, fraction = divmod(now, 1_000_000_000)
    digits = f"{fraction:09d}".rstrip("0")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{digits}Z" if digits else f"{stamp}Z"
