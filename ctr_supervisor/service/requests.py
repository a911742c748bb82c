"""The requests about containers (docs/PROTOCOL.md), each carried out by a job of its own.

What the supervisor answers by itself, from what it knows, is not here: list, state, wait, and what is about itself.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctr_common.errors import ConfigError, CtrError, ProtocolError
from ctr_common.fd import Fd
from ctr_common.spec import load
from ctr_common.wire import Packet, Wire
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.options import CreateOptions, ExecOptions
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.service.parents import KeeperParent

if TYPE_CHECKING:
    from ctr_common.spec.types import Config


class Request:
    """One request under way in its job.

    Args:
        packet: the job; its `body` is the request as the client sent it.
        reports: where answer and events go.
        job: its number.
        home: see Parent.
    """

    def __init__(self, packet: Packet, reports: Wire, job: int, home: int) -> None:
        self.home = home
        self.reports = reports
        self.job = job
        self.root: str = packet.get("root", str, "")
        self.systemd: bool = packet.get("systemd_cgroup", bool, False)
        self.packet = Packet(packet.get("body", dict, {}), {name: packet.take_fd(name) for name in packet.fd_names})

    @property
    def type(self) -> str:
        """Which request it is."""
        return self.packet.type

    @property
    def id(self) -> str:
        """The container that it is about.

        Raises:
            ProtocolError: it names none.
        """
        found: str = self.packet.get("id", str, "")
        if not found:
            raise ProtocolError(f"{self.type} came without an id")
        return found

    def runtime(self, parent: KeeperParent | None = None) -> Runtime:
        """The engine's surroundings."""
        return Runtime(
            self.root,
            systemd_cgroup=self.packet.get("systemd_cgroup", bool, self.systemd),
            criu=self.packet.get("criu", str, ""),
            parent=parent,
            log=self.log,
        )

    def log(self, level: str, line: str) -> None:
        """A line for the supervisor's log."""
        self.reports.send("log", None, job=self.job, level=level, line=line, id=self.packet.get("id", str, ""))

    def event(self, event: str, **fields: Any) -> None:
        """Something happened to the container."""
        self.reports.send("event", None, job=self.job, event=event, id=self.id, **fields)

    def answer(self, fds: dict[str, int] | None = None, **fields: Any) -> None:
        """What the client gets."""
        self.reports.send("answer", fds, job=self.job, body=fields)

    def keeper(self) -> KeeperParent:
        """A parent whose processes have the request's stdio."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdio = [self.packet.take_fd(name) if name in self.packet.fd_names else null for name in STDIO]
        return KeeperParent((stdio[0], stdio[1], stdio[2]), self.home)


STDIO = ("stdin", "stdout", "stderr")


def serve(packet: Packet, reports: Wire, job: int, home: int) -> bool:
    """Carries one request out, and reports its answer or failure.

    Returns:
        Whether it succeeded and left no child: keepers and processes of execs become the supervisor's when this process
        ends, and nobody is told how they end before.
    """
    request = Request(packet, reports, job, home)
    handler = HANDLERS.get(request.type)
    succeeded = False
    try:
        if handler is None:
            raise ProtocolError(f"no request is called {request.type}")
        handler(request)
        succeeded = True
    except CtrError as error:
        reports.send("failure", None, job=job, error=error.as_dict())
    except OSError as error:
        reports.send("failure", None, job=job, error=CtrError.from_os_error(error).as_dict())
    except Exception as error:
        import traceback

        traceback.print_exc()
        bug = CtrError(f"internal error: {type(error).__name__}: {error}", hint="the supervisor's log shows where")
        reports.send("failure", None, job=job, error=bug.as_dict())
    reports.send("done", None, job=job)
    return succeeded and not has_children()


def has_children() -> bool:
    """Whether this process is somebody's parent."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def source_of(request: Request) -> "tuple[str, Config | None]":
    """The bundle that a creation names, "" for none, and the configuration that it brings in place of the bundle's.

    Raises:
        ConfigError: neither is given, or the configuration is none.
    """
    bundle: str = request.packet.get("bundle", str, "")
    config = request.packet.get("config", dict)
    if not bundle and config is None:
        raise ConfigError("a creation needs a bundle or a config")
    if bundle and not bundle.startswith("/"):
        raise ConfigError("the bundle's path must be absolute", path=bundle)
    return bundle, None if config is None else load.config_of(config)


def create_options(request: Request) -> CreateOptions:
    """The flags of a creation."""
    return CreateOptions(
        console_socket=request.packet.get("console_socket", str, ""),
        pid_file=request.packet.get("pid_file", str, ""),
        no_pivot=request.packet.get("no_pivot", bool, False),
        no_new_keyring=request.packet.get("no_new_keyring", bool, False),
        detach=bool(request.packet.get("console_socket", str, "")),
        networks=request.packet.get("networks", list, []),
    )


def create(request: Request) -> None:
    """A container that waits for `start`."""
    _create(request, start_too=False)


def run(request: Request) -> None:
    """A container that runs."""
    _create(request, start_too=True)


def _create(request: Request, start_too: bool) -> None:
    from ctr_supervisor.engine import create as creation
    from ctr_supervisor.engine import run as running
    from ctr_supervisor.engine import start as starting

    bundle, config = source_of(request)
    created = creation.make(request.runtime(request.keeper()), request.id, bundle, create_options(request), config)
    request.event("created", pid=created.launched.pid)
    try:
        if start_too:
            starting.release(created.container)
            starting.run_poststart_hooks(created.container)
            request.event("started", pid=created.launched.pid)
    except BaseException:
        created.launched.kill()
        created.close()
        running.destroy(created.container)
        request.event("deleted")
        raise
    answer_process(request, created.launched.pid, created.launched.pidfd, created.console_master)
    created.close()


def answer_process(request: Request, pid: int, pidfd: Fd, console: Fd) -> None:
    """The answer of everything that makes a process."""
    fds = {"pidfd": pidfd.fileno()}
    if console.number >= 0:
        fds["console"] = console.fileno()
    request.answer(fds, pid=pid)


def start(request: Request) -> None:
    """Lets a created container go on."""
    from ctr_supervisor.engine import start as starting

    runtime = request.runtime()
    starting.start(runtime, request.id)
    request.event("started", pid=containers.load(runtime, request.id).pid)
    request.answer()


def exec_(request: Request) -> None:
    """One more process in a container."""
    from ctr_supervisor.engine import exec as executing

    process = request.packet.get("process", dict)
    if process is None:
        raise ConfigError("exec needs a process")
    process = load.process_of(process)
    container = containers.load(request.runtime(request.keeper()), request.id)
    options = ExecOptions(
        console_socket=request.packet.get("console_socket", str, ""),
        pid_file=request.packet.get("pid_file", str, ""),
        detach=bool(request.packet.get("console_socket", str, "")),
        ignore_paused=request.packet.get("ignore_paused", bool, False),
        cgroup=request.packet.texts("cgroup"),
    )
    executing.check(container, process, options)
    execution = executing.Execution(container, process, options)
    launched = execution.begin()
    request.event("exec-started", pid=launched.pid)
    answer_process(request, launched.pid, launched.pidfd, execution.console_master)
    execution.close()


def delete(request: Request) -> None:
    """Nothing of the container is left."""
    from ctr_supervisor.engine import delete as deleting

    deleting.delete(request.runtime(), request.id, force=request.packet.get("force", bool, False))
    request.event("deleted")
    request.answer()


def kill(request: Request) -> None:
    """A signal for the container."""
    from ctr_supervisor.cli.kill import parse_signal
    from ctr_supervisor.engine import kill as killing

    number = parse_signal(str(request.packet.body.get("signal", "TERM")))
    killing.kill(request.runtime(), request.id, number, all=request.packet.get("all", bool, False))
    request.answer()


def pause(request: Request) -> None:
    """Freezes every process of the container."""
    from ctr_supervisor.engine import pause as pausing

    pausing.pause(request.runtime(), request.id)
    request.answer()


def resume(request: Request) -> None:
    """Thaws a paused container."""
    from ctr_supervisor.engine import pause as pausing

    pausing.resume(request.runtime(), request.id)
    request.answer()


def update(request: Request) -> None:
    """Other limits."""
    from ctr_supervisor.engine import update as updating

    changes = request.packet.get("resources", dict)
    if changes is None:
        raise ConfigError("update needs resources")
    updating.update(
        request.runtime(),
        request.id,
        load.resources_of(changes),
        l3_cache=request.packet.get("l3_cache_schema", str, ""),
        mem_bw=request.packet.get("mem_bw_schema", str, ""),
    )
    request.event("updated")
    request.answer()


def stats(request: Request) -> None:
    """Statistics of this moment."""
    from ctr_supervisor.engine import stats as counting

    request.answer(stats=counting.stats(request.runtime(), request.id))


def processes(request: Request) -> None:
    """Pids of all processes."""
    from ctr_supervisor.engine import ps

    request.answer(pids=ps.pids(request.runtime(), request.id))


def checkpoint(request: Request) -> None:
    """See requests_checkpoint.py."""
    from ctr_supervisor.service import requests_checkpoint

    requests_checkpoint.checkpoint(request)


def restore(request: Request) -> None:
    """See requests_checkpoint.py."""
    from ctr_supervisor.service import requests_checkpoint

    requests_checkpoint.restore(request)


HANDLERS: dict[str, Callable[[Request], None]] = {
    "checkpoint": checkpoint,
    "create": create,
    "delete": delete,
    "exec": exec_,
    "kill": kill,
    "pause": pause,
    "processes": processes,
    "restore": restore,
    "resume": resume,
    "run": run,
    "start": start,
    "stats": stats,
    "update": update,
}
