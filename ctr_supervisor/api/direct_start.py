"""The start of a process whose engine is this program."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctr_common import fastjson
from ctr_common.errors import WrongState
from ctr_common.fd import Fd
from ctr_common.spec import load as spec_load
from ctr_common.spec import schema, validate
from ctr_supervisor.api import ends
from ctr_supervisor.api.direct_engine import runtime_for
from ctr_supervisor.api.making import KeptStateDir, Making, ProgramParent, give_size
from ctr_supervisor.api.stdio import DEVNULL, Console, Streams, fds_of
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import create as creation
from ctr_supervisor.engine import exec as executing
from ctr_supervisor.engine.container import PENDING
from ctr_supervisor.engine.options import CreateOptions, ExecOptions, check_terminal

if TYPE_CHECKING:
    from ctr_common.spec import types as spec_types
    from ctr_supervisor.api.criu import RestoreOptions
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import Config


class _Executing(executing.Execution):
    """An exec whose terminal has the size that the caller asks for, not that of our own terminal."""

    def take_console(self, master: int) -> None:
        """Where the master of the process's pty belongs."""
        super().take_console(master)
        give_size(self.console_master, self.process)


def streams_of(process: Process, terminal: bool) -> Streams:
    """The streams of a process; those of one with a terminal are that."""
    return Streams((DEVNULL, DEVNULL, DEVNULL) if terminal else process.wanted_streams)


def start_init(
    root: str,
    id: str,
    engine: Callable[[], containers.Container],
    process: Process,
    images: RestoreOptions | None = None,
) -> None:
    """Makes the init process of a container that waits for one.

    Args:
        root: state root.
        engine: the container as it is at this moment.
        images: it goes on from these.

    Raises:
        CtrError: it was not made, and the container waits as before.
    """
    directory = KeptStateDir(root, id)
    directory.lock()
    try:
        config, state = pending_of(engine())
        spec = process.described(
            config.get("process"), lambda: os.open(state["rootfs"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        whole: Any = {**config, "process": spec}
        streams = streams_of(process, bool(spec.get("terminal")))
        try:
            directory.before = (config, state)
            created = make(root, directory, process, spec_load.config_of(whole), streams, images)
            status_directory = Fd(os.open(directory.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except BaseException:
            streams.close()
            raise
    finally:
        directory.unlock()
    streams.handed_over()
    pid, pidfd = created.launched.pid, Fd(created.launched.pidfd.take())
    handle: ends.Handle
    if images is None:
        child = handle = ends.Child(pid, pidfd, status_directory)
        ends.children.add(child)
    else:
        status_directory.close()
        handle = ends.Foreign(pid, pidfd, directory.path)
    process.started(handle, streams.files(), console_of(created.console_master))
    created.close()


def pending_of(container: containers.Container) -> tuple[Config, dict[str, Any]]:
    """Configuration and state of a container that waits for its init process; the caller holds the lock.

    Raises:
        WrongState: it has one, or had.
    """
    if container.pid or PENDING not in container.state:
        raise WrongState("container already has an init process")
    state = {name: value for name, value in container.state.items() if name != "version"}
    return container.config, state


def make(
    root: str,
    directory: KeptStateDir,
    process: Process,
    whole: Config,
    streams: Streams,
    images: RestoreOptions | None,
) -> creation.Created:
    """The engine's part.

    Args:
        root: state root.
        directory: locked; has the state as it was before.
        whole: the configuration with its process.
    """
    assert directory.before is not None
    _, state = directory.before
    pending, bundle = state[PENDING], state["bundle"]
    extra = fds_of(process.extra_files)
    options = CreateOptions(
        console_socket=process.console_socket,
        detach=bool(process.console_socket),
        no_pivot=pending["no_pivot"],
        no_new_keyring=pending["no_new_keyring"],
        preserve_fds=len(extra),
        networks=pending["networks"],
    )
    check_terminal(whole["process"], options)
    parent = ProgramParent(streams.child, extra)
    runtime = runtime_for(root, parent, systemd_cgroup=pending["systemd_cgroup"])
    for warning in validate.check(whole, bundle, rootless=runtime.rootless_euid):
        runtime.warn(warning)
    if images is not None:
        from ctr_supervisor.api import criu_direct

        return criu_direct.restore(runtime, directory, whole, bundle, options, images)
    making = Making(runtime, directory, whole, bundle, options)
    try:
        return making.run()
    except BaseException:
        making.undo()
        raise


def start_other(container: containers.Container, process: Process) -> None:
    """Starts one more process in a container.

    Raises:
        CtrError: it was not started.
    """
    root = f"/proc/{container.pid}/root"
    spec = process.described(
        container.config.get("process"), lambda: os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    )
    data = fastjson.dumps(spec).encode("utf-8", "surrogateescape")
    checked: spec_types.Process = spec_load.parse(data, schema.PROCESS, "process")
    extra = fds_of(process.extra_files)
    options = ExecOptions(
        console_socket=process.console_socket,
        detach=bool(process.console_socket),
        preserve_fds=len(extra),
        ignore_paused=process.ignore_paused,
        cgroup=process.cgroup,
    )
    streams = streams_of(process, bool(checked.get("terminal")))
    try:
        container.runtime.parent = ProgramParent(streams.child, extra)
        executing.check(container, checked, options)
        execution = _Executing(container, checked, options)
        launched = execution.begin()
    except BaseException:
        streams.close()
        raise
    streams.handed_over()
    child = ends.Child(launched.pid, Fd(launched.pidfd.take()))
    ends.children.add(child)
    process.started(child, streams.files(), console_of(execution.console_master))
    execution.close()


def console_of(master: Fd) -> Console | None:
    """The terminal of a process that has one."""
    return Console(master.take()) if master.number >= 0 else None
