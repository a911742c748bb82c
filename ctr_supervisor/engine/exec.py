"""`exec`: one more process in a running container; the same ctr-init, no setup worker."""

import errno
import os

from ctr_common import trace
from ctr_common.bootstrap import boolean, text, u32, u64
from ctr_common.errors import ConfigError, CtrError, WrongState
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWUSER
from ctr_common.spec import namespaces, users, validate
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import handover, launch, settings
from ctr_supervisor.engine.options import ExecOptions, check_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Process


def exec_process(container: containers.Container, process: "Process", options: ExecOptions) -> int:
    """Runs a process in a container.

    Args:
        container: a loaded one.
        process: complete, as in `.process` of config.json.

    Returns:
        Its exit status (128 + n for signal n), 0 when detached.

    Raises:
        WrongState: the container has stopped, or is paused and `ignore_paused` was not given.
        InitError: the process could not be made.
    """
    runtime = container.runtime
    check(container, process, options)
    foreground = None
    if not options.detach:
        foreground = runtime.parent.foreground(subreaper=not options.no_subreaper)
    execution = Execution(container, process, options)
    launched = execution.begin()
    try:
        return (foreground.attend(launched, execution.console_master) or 0) if foreground is not None else 0
    finally:
        execution.close()


def check(container: containers.Container, process: "Process", options: ExecOptions) -> None:
    """Whether the process can be made in the container as it is.

    Raises:
        WrongState: the container has stopped, or is paused and `ignore_paused` was not given.
        ConfigError: the process is not a possible one.
    """
    runtime = container.runtime
    status = container.status()
    if status == containers.STOPPED:
        raise WrongState("cannot exec in a stopped container")
    if status == containers.PAUSED and not options.ignore_paused:
        raise WrongState("cannot exec in a paused container (use --ignore-paused to override)")
    if status == containers.CREATING:
        raise WrongState("cannot exec in a container that is still being created")
    if not process.get("args"):
        raise ConfigError("process args cannot be empty")
    for warning in validate.check_process(process, container.config, rootless=runtime.rootless_euid):
        runtime.warn(warning)
    check_terminal(process, options)
    if options.preserve_fds:
        runtime.parent.check_preserved_fds(options.preserve_fds)


class Execution:
    """One exec under way.

    Attributes:
        launched: its process, from `begin` on.
        console_master: of a terminal that stays in the foreground, else closed.
    """

    def __init__(self, container: containers.Container, process: "Process", options: ExecOptions) -> None:
        self.container = container
        self.process = process
        self.options = options
        self.console_master = Fd(-1)
        self.stage0: launch.Stage0 | None = None
        self.launched: launch.Launched | None = None

    def begin(self) -> launch.Launched:
        """All of it, in order, until the program runs; then `close` it.

        Raises:
            CtrError: nothing of it is left.
        """
        pidfd = self.container.open_pidfd()
        if pidfd is None:
            raise WrongState("cannot exec in a stopped container")
        try:
            with Fd(pidfd):
                self.stage0 = launch.Stage0.start(self.container.runtime.parent, self.options.preserve_fds)
                home = self.lookup_home()
                with trace.span("launch ctr-init, until there is a process"):
                    launched = self.launched = self.launch_process(pidfd)
            with trace.span("cgroups of the process"):
                launched.go(self.place_in_cgroups(launched))
            with trace.span("settings of the process, until it is prepared"):
                self.set_up_process(launched, home)
            handover.announce(self.options, launched)
            with trace.span("until execve"):
                launched.await_execve()
        except CtrError as error:
            self.abandon()
            if error.errno == errno.EPERM and self.container.status() == containers.CREATED:
                # ctr-init, which waits there, lets nobody without privileges look into it (CVE-2016-9962).
                error.hint = error.hint or "a container of a plain user can be entered once it is started"
            raise error.within(launch.CONTEXT) from None
        except BaseException:
            self.abandon()
            raise
        return launched

    def close(self) -> None:
        """Lets go of the process; it goes on."""
        self.console_master.close()
        if self.launched is not None:
            self.launched.close()

    def abandon(self) -> None:
        """Leaves nothing of a failed exec."""
        if self.stage0 is not None:
            self.stage0.abandon()
        if self.launched is not None:
            self.launched.kill()
        self.close()

    def lookup_home(self) -> "str | None":
        """Home directory of the user by the container's own /etc/passwd, read from outside."""
        if any(entry.startswith("HOME=") and entry != "HOME=" for entry in self.process.get("env") or ()):
            return None
        try:
            root = os.open(f"/proc/{self.container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        with Fd(root):
            return users.lookup_home(root, (self.process.get("user") or {}).get("uid", 0))

    def launch_process(self, pidfd: int) -> launch.Launched:
        """The process in the container's namespaces."""
        config = self.container.config
        flags = 0
        for kind, (flag, _) in namespaces.NAMESPACES.items():
            if namespaces.has(config, kind):
                flags |= flag
        attributes = launch.bootstrap_attributes(
            clone_flags=0,
            user_namespace=bool(flags & CLONE_NEWUSER),
            rootless=self.container.runtime.rootless_euid,
        )
        attributes += [(_kernel.ATTR_NS_PIDFD_FD, u32(0)), (_kernel.ATTR_NS_PIDFD_FLAGS, u64(flags))]
        if self.process.get("oomScoreAdj") is not None:
            attributes.append((_kernel.ATTR_OOM_SCORE_ADJ, text(str(self.process["oomScoreAdj"]))))
        initial = (self.process.get("execCPUAffinity") or {}).get("initial")
        if initial:
            mask = settings.bit_mask(initial, ".process.execCPUAffinity.initial", 1)
            attributes.append((_kernel.ATTR_CPU_AFFINITY_INITIAL, mask))
        cgroup = None if self.options.cgroup else self.container.cgroups.clone_fd()
        try:
            runtime = self.container.runtime
            note = runtime.note if runtime.debug else None
            stage0, self.stage0 = self.stage0, None
            assert stage0 is not None
            return stage0.make_process(attributes, cgroup_fd=cgroup, note=note, fds=(pidfd,))
        finally:
            if cgroup is not None:
                os.close(cgroup)

    def place_in_cgroups(self, launched: launch.Launched) -> "list[int]":
        """Puts it into the container's cgroups or sub-cgroups; returns fds of those that it has to enter by itself."""
        if self.container.state.get("intel_rdt_path"):
            from ctr_supervisor.engine import rdt

            rdt.join(self.container.state, launched.pid)
        cgroup = list(self.options.cgroup) or None
        entries = None if cgroup else self.container.cgroups.entry_fds(launched.in_cgroup)
        if entries is None:
            self.container.cgroups.add_pid(launched.pid, cgroup, init_pid=self.container.pid)
        return entries or []

    def set_up_process(self, launched: launch.Launched, home: "str | None") -> None:
        """Hands over everything that the process does to itself."""
        config = self.container.config
        attributes = settings.process_attributes(self.process, config)
        attributes += settings.home_attributes(self.process, home)
        attributes += settings.exec_affinity_attributes(self.process)
        attributes.append((_kernel.ATTR_NEW_SESSION, boolean(True)))
        if self.options.preserve_fds:
            attributes.append((_kernel.ATTR_PRESERVE_FDS, u32(self.options.preserve_fds)))
        if self.container.state.get("new_keyring", True):
            attributes.append((_kernel.ATTR_KEYRING, text(f"_ses.{self.container.id}")))
        if self.process.get("terminal"):
            attributes.append((_kernel.ATTR_CONSOLE_ALLOCATE, boolean(True)))
        seccomp = (config.get("linux") or {}).get("seccomp")
        if seccomp:
            from ctr_supervisor.engine.seccomp import compile_filter

            compiled = compile_filter(seccomp, cache_dir=self.container.runtime.seccomp_cache)
            attributes += settings.seccomp_attributes(compiled)
        fds: list[int] = []
        root = Fd(-1)
        if not namespaces.has(config, "mount"):
            root = Fd(os.open(self.container.state["rootfs"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            attributes.append((_kernel.ATTR_ROOT_FD, u32(len(fds))))
            fds.append(root.fileno())
        with root:
            launched.send_settings(
                attributes,
                fds,
                self.take_console,
                lambda fd: handover.send_listener(self.container, fd, containers.RUNNING, launched.pid),
            )

    def take_console(self, master: int) -> None:
        """Where the master of the process's pty belongs."""
        self.console_master = handover.deliver_console(self.options, master)
