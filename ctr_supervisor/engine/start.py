"""`start`: lets a created container's process go on to execve."""

import os
import select

from ctr_common import channel, hooks
from ctr_common.bootstrap import decode
from ctr_common.errors import CtrError, ProtocolError, StateError, WrongState
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.state import FIFO_FILE
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.kill import SIGKILL, send
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.process.notify import NotifySocket

# What the container process writes into the fifo when it goes on; an ERROR message may follow.
STARTED = b"0"
READ_MAX = 1024 * 1024


def start(runtime: Runtime, container_id: str) -> None:
    """Starts a created container and runs its poststart hooks.

    Raises:
        WrongState: it is not in the state "created", or its process died before it was started.
        InitError: a startContainer hook or execve failed.
        HookError: a poststart hook failed; the container is killed then.
    """
    container = containers.load(runtime, container_id)
    container.directory.lock()
    try:
        status = container.status()
        if status == containers.STOPPED:
            raise WrongState("cannot start a container that has stopped")
        if status != containers.CREATED:
            what = (
                "an already running container" if status == containers.RUNNING else f"a container in the {status} state"
            )
            raise WrongState(f"cannot start {what}")
        notify = notify_socket(container)
        release(container)
        run_poststart_hooks(container)
    finally:
        container.directory.unlock()
    if notify is not None:
        pidfd = container.open_pidfd()
        if pidfd is not None:
            with Fd(pidfd):
                notify.wait(pidfd, container.pid)
        notify.close()


def notify_socket(container: containers.Container) -> "NotifySocket | None":
    """The container's notify socket, listening, where it was created with one and the caller waits for it."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    from ctr_supervisor.process import notify

    directory = container.directory.file(notify.DIRECTORY)
    found = notify.from_environment(directory) if os.path.isdir(directory) else None
    if found is not None:
        found.bind()
    return found


def release(container: containers.Container) -> None:
    """Reads what the container process writes into the fifo; returns once execve has closed it.

    Never blocks for good: the process's end is watched through its pidfd, and the fifo is opened without waiting.

    Raises:
        WrongState: the process is dead, or the container was deleted at this moment.
        InitError: what it reported instead of execve.
    """
    pidfd = container.open_pidfd()
    if pidfd is None:
        raise WrongState("container process is already dead")
    with Fd(pidfd):
        path = container.directory.file(FIFO_FILE)
        try:
            fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise WrongState("cannot start an already running container") from None
        except OSError as error:
            raise StateError("cannot open the exec fifo", path=path, errno=error.errno or 0) from None
        with Fd(fifo):
            data = _read_until_execve(container, fifo, pidfd)
    report = data[len(STARTED) :]
    if report:
        raise reported(report)


def _read_until_execve(container: containers.Container, fifo: int, pidfd: int) -> bytes:
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    data = b""
    while True:
        events = dict(poll.poll())
        # The process may have written and died since: what it wrote is looked at first.
        if fifo in events:
            chunk = _read(fifo)
            if chunk and not data:
                # From the first byte on it is running: nobody shall take it for a created one.
                container.directory.remove_fifo()
            data += chunk or b""
            if len(data) > READ_MAX:
                raise ProtocolError(f"the container process wrote more than {READ_MAX} bytes into the exec fifo")
            if chunk == b"":
                if data:
                    return data
                # A writer opened and left without a word: only its end is left to wait for.
                poll.unregister(fifo)
        if pidfd in events:
            chunk = _read(fifo)
            while chunk:
                data += chunk
                chunk = _read(fifo)
            if data:
                container.directory.remove_fifo()
                return data
            raise WrongState("container process is already dead")


def _read(fifo: int) -> "bytes | None":
    """What is there: b"" at the end of the fifo, None for nothing at this moment."""
    try:
        return os.read(fifo, 65536)
    except BlockingIOError:
        return None


def reported(data: bytes) -> CtrError:
    """The failure that the container process wrote behind its start byte."""
    try:
        kind, attributes = decode(data)
    except ProtocolError as error:
        return error
    if kind != _kernel.MSG_ERROR:
        return ProtocolError(f"the container process sent {channel.name_of(kind)} through the exec fifo")
    return channel.Message(kind, attributes, []).error()


def run_poststart_hooks(container: containers.Container) -> None:
    """Runs the poststart hooks; the first failure stops the container (runtime-spec, "Lifecycle" step 9).

    Raises:
        HookError: a hook failed.
    """
    configured = (container.config.get("hooks") or {}).get("poststart")
    if not configured:
        return
    try:
        hooks.run(configured, container.oci_state(containers.RUNNING), "poststart")
    except CtrError:
        try:
            send(container, SIGKILL)
        except WrongState:
            pass
        raise
