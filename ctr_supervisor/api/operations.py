"""What a container of a supervisor is asked, and what comes of the answers; who sends and waits is somebody else.

Each operation is a generator: it yields a request, is sent the answer, or has the failure thrown into it, and returns
its result. The blocking client (`client`) and that of asyncio (`aio`) carry out the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ctr_common.errors import ConfigError, ContainerNotFound, NotSupported, ProtocolError, WrongState
from ctr_common.fd import Fd
from ctr_common.spec import load as spec_load
from ctr_common.spec.validate import validate_id
from ctr_supervisor.api.criu import SWITCHES, CheckpointOptions, CriuOptions, RestoreOptions
from ctr_supervisor.api.ends import signal_number
from ctr_supervisor.api.stdio import DEVNULL, NAMES, Console, Streams

if TYPE_CHECKING:
    from ctr_common.wire import Packet
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import Config, ContainerState, Network, Resources, Stats, Status

T = TypeVar("T")


@dataclass(slots=True)
class Ask:
    """One request.

    Attributes:
        type: what is asked.
        fields: of the message.
        fds: that go along, by name; they stay the asker's.
    """

    type: str
    fields: dict[str, Any] = field(default_factory=dict)
    fds: dict[str, int] = field(default_factory=dict)


Operation = Generator[Ask, "Packet", T]


@dataclass(slots=True)
class Pending:
    """A container that nobody but its program knows of, until its init process is started."""

    config: Config
    bundle: str
    options: dict[str, Any]


@dataclass(slots=True)
class Made:
    """A process that the supervisor has made, as the answer has it; the fds are the receiver's."""

    pid: int
    pidfd: Fd
    console: Console | None
    streams: Streams


def pending(
    id: str,
    config: Config,
    bundle: str | None,
    networks: Sequence[Network],
    **options: bool,
) -> Pending:
    """What `create` of a supervisor begins with; see `direct.create` for the arguments.

    Raises:
        UsageError, ConfigError: the id or the configuration is none.
    """
    validate_id(id)
    checked = spec_load.config_of(config)
    path = (checked.get("root") or {}).get("path", "")
    if not bundle and not path.startswith("/"):
        raise ConfigError("must be absolute where there is no bundle", json_path=".root.path")
    asked: dict[str, Any] = {name: value for name, value in options.items() if value}
    if networks:
        asked["networks"] = [dict(network) for network in networks]
    return Pending(checked, os.path.abspath(bundle) if bundle else "", asked)


class Operations:
    """What can be asked about one container.

    Args:
        id: of the container.
        pending: what it will be made of; None for one that is there.
    """

    def __init__(self, id: str, pending: Pending | None = None) -> None:
        self.id = id
        self.pending = pending

    def ask(self, type: str, **fields: Any) -> Ask:
        """A request about this container."""
        return Ask(type, {"id": self.id, **fields})

    def _simple(self, type: str, **fields: Any) -> Operation[None]:
        self._must_be_there()
        yield self.ask(type, **fields)

    def _must_be_there(self) -> None:
        if self.pending is not None:
            raise WrongState("the container has no init process yet")

    # -- what it is

    def state(self) -> Operation[ContainerState]:
        """The OCI state."""
        if self.pending is not None:
            return {
                "ociVersion": self.pending.config.get("ociVersion", ""),
                "id": self.id,
                "pid": 0,
                "status": "stopped",
                "bundle": self.pending.bundle,
                "rootfs": self._rootfs(),
                "created": "",
                "owner": "",
            }
        packet = yield self.ask("state")
        state: ContainerState = packet.get("container", dict, {})
        return state

    def status(self) -> Operation[Status]:
        """The status."""
        state = yield from self.state()
        return state["status"]

    def pid(self) -> Operation[int]:
        """Pid of the init process."""
        state = yield from self.state()
        return state["pid"]

    def exit_status(self) -> Operation[int | None]:
        """How the init process ended."""
        state = yield from self.state()
        return state.get("exit_status")

    def config(self) -> Operation[Config]:
        """The configuration."""
        if self.pending is not None:
            return spec_load.config_of(self.pending.config)
        packet = yield self.ask("config")
        config: Config = packet.get("config", dict, {})
        return config

    # -- its life

    def start(self, process: Process, *, at_once: bool = False) -> Operation[Made]:
        """Makes a process.

        Args:
            at_once: an init process goes on to its program.
        """
        if process.extra_files:
            raise NotSupported("extra_files can't be handed to a supervisor")
        process.claim()
        try:
            if process.init:
                return (yield from self._start_init(process, "run" if at_once else "create"))
            return (yield from self._start_other(process))
        except BaseException:
            process.disclaim()
            raise

    def _rootfs(self) -> str:
        assert self.pending is not None
        path = (self.pending.config.get("root") or {}).get("path", "")
        return os.path.join(self.pending.bundle, path)

    def _start_init(self, process: Process, type: str) -> Operation[Made]:
        waiting = self.pending
        if waiting is None:
            raise WrongState("container already has an init process")
        spec = process.described(
            waiting.config.get("process"),
            lambda: os.open(self._rootfs(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        )
        fields: dict[str, Any] = {"config": {**waiting.config, "process": spec}, **waiting.options}
        if waiting.bundle:
            fields["bundle"] = waiting.bundle
        made = yield from self._make(process, bool(spec.get("terminal")), type, fields)
        self.pending = None
        return made

    def _start_other(self, process: Process) -> Operation[Made]:
        if self.pending is not None:
            raise WrongState("cannot exec in a stopped container")
        config = yield from self.config()
        pid = yield from self.pid()
        spec = process.described(
            config.get("process"), lambda: os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        fields: dict[str, Any] = {
            "process": spec,
            "ignore_paused": process.ignore_paused,
            "cgroup": list(process.cgroup),
        }
        return (yield from self._make(process, bool(spec.get("terminal")), "exec", fields))

    def _make(self, process: Process, terminal: bool, type: str, fields: dict[str, Any]) -> Operation[Made]:
        if process.console_socket:
            fields["console_socket"] = os.path.abspath(process.console_socket)
        streams = Streams((DEVNULL, DEVNULL, DEVNULL) if terminal else process.wanted_streams)
        try:
            packet = yield Ask(type, {"id": self.id, **fields}, dict(zip(NAMES, streams.child, strict=True)))
            pid: int = packet.get("pid", int, 0)
            pidfd = Fd(packet.take_fd("pidfd"))
            console = Console(packet.take_fd("console")) if "console" in packet.fd_names else None
        except BaseException:
            streams.close()
            raise
        streams.handed_over()
        return Made(pid, pidfd, console, streams)

    def exec(self) -> Operation[None]:
        """Lets the init process go on."""
        return self._simple("start")

    def wait(self, pid: int = 0) -> Operation[int | None]:
        """The end of the init process.

        Args:
            pid: of the one that is meant: that of an exec, or an init process whose container may be deleted by now.
        """
        if self.pending is not None:
            raise WrongState("the container was never started")
        packet = yield self.ask("wait", **({"pid": pid} if pid else {}))
        status: int | None = packet.get("status", int)
        return status

    def signal(self, signal: int | str, *, all: bool) -> Operation[None]:
        """Sends a signal."""
        return self._simple("kill", signal=signal_number(signal), all=all)

    def pause(self) -> Operation[None]:
        """Freezes it."""
        return self._simple("pause")

    def resume(self) -> Operation[None]:
        """Thaws it."""
        return self._simple("resume")

    def destroy(self, *, force: bool) -> Operation[None]:
        """Removes it."""
        if self.pending is not None:
            return
        try:
            yield self.ask("delete", force=force)
        except ContainerNotFound:
            if not force:
                raise

    # -- limits and figures

    def set(self, resources: Resources, l3_cache_schema: str, mem_bw_schema: str) -> Operation[None]:
        """Sets limits."""
        return self._simple(
            "update", resources=dict(resources), l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema
        )

    def stats(self) -> Operation[Stats]:
        """Statistics."""
        self._must_be_there()
        packet = yield self.ask("stats")
        stats: Stats = packet.get("stats", dict, {})
        return stats

    def processes(self) -> Operation[list[int]]:
        """Pids."""
        if self.pending is not None:
            return []
        packet = yield self.ask("processes")
        pids: list[int] = packet.get("pids", list, [])
        return pids

    # -- checkpoint and restore

    def checkpoint(self, options: CheckpointOptions, *, pre_dump: bool = False) -> Operation[Stats]:
        """Writes images."""
        self._must_be_there()
        if options.status_fd >= 0:
            raise NotSupported("status_fd can't be handed to a supervisor")
        fields = criu_fields(options)
        if options.parent_path:
            fields["parent_path"] = options.parent_path
        if options.page_server is not None:
            fields["page_server"] = "{}:{}".format(*options.page_server)
        if options.ghost_limit:
            fields["ghost_limit"] = str(options.ghost_limit)
        packet = yield self.ask("checkpoint", pre_dump=pre_dump, **fields)
        return told_by(packet.body)

    def restore(self, process: Process, options: RestoreOptions) -> Operation[Made]:
        """Makes the init process from images."""
        waiting = self.pending
        if waiting is None:
            raise WrongState("container already has an init process")
        if not waiting.bundle:
            raise NotSupported("a supervisor restores from a bundle: give one to create")
        fields = criu_fields(options)
        for name in ("lsm_profile", "lsm_mount_context"):
            if getattr(options, name):
                fields[name] = getattr(options, name)
        process.claim()
        try:
            terminal = bool((waiting.config.get("process") or {}).get("terminal"))
            made = yield from self._make(process, terminal, "restore", {"bundle": waiting.bundle, **fields})
        except BaseException:
            process.disclaim()
            raise
        self.pending = None
        return made


def told_by(body: dict[str, Any]) -> dict[str, Any]:
    """What an answer tells, without what makes it a message."""
    return {name: value for name, value in body.items() if name not in ("type", "seq", "fds")}


def criu_fields(options: CriuOptions) -> dict[str, Any]:
    """Options of a checkpoint or a restore as fields of a request."""
    fields: dict[str, Any] = {name: True for name in SWITCHES if getattr(options, name, False)}
    fields["image_path"] = os.path.abspath(options.image_path)
    if options.criu_path:
        fields["criu"] = options.criu_path
    if options.work_path:
        fields["work_path"] = os.path.abspath(options.work_path)
    if options.cgroup_mode:
        fields["manage_cgroups_mode"] = options.cgroup_mode
    if options.network_lock:
        fields["network_lock"] = options.network_lock
    if options.empty_namespaces:
        fields["empty_ns"] = list(options.empty_namespaces)
    return fields


def socket_path(path: str | None) -> str:
    """Where a supervisor listens.

    Args:
        path: of its socket; None for CTRUN_SUPERVISOR where that is a path, else for the place of this user's.
    """
    path = path or os.environ.get("CTRUN_SUPERVISOR", "")
    # The words that c/client/options.c knows as well.
    if path not in ("", "0", "1", "auto"):
        return os.path.abspath(path)
    from ctr_supervisor.service.options import default_socket

    return default_socket()


def check_hello(packet: Packet) -> dict[str, Any]:
    """The supervisor's greeting.

    Raises:
        ProtocolError: it is none, or of another version.
    """
    if packet.type != "hello":
        raise ProtocolError(f"the supervisor sent {packet.type} instead of hello")
    if packet.get("version", int, 0) != 1:
        raise ProtocolError(f"the supervisor speaks protocol version {packet.body.get('version')}, this program 1")
    return packet.body
