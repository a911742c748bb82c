"""What a worker of the pool does with its one job, and what it reports.

supervisor → job {job, kind, …}        kind "command": the thin client's command line, with the connection to it
                                       kind "finish": delete a container whose foreground process has ended
                                       kind "request": one of the requests about containers
worker → taken {job, pid}              from now on this process is the job
       → event {job, event, id, …}     something happened to a container
       → answer {job, body}            what the request's answer is
       → done {job}                    the last word; a job that ends without it has crashed
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_SET_NAME
from ctr_common.wire import Packet, Wire
from ctr_supervisor.service import environment

if TYPE_CHECKING:
    from ctr_supervisor.service.parents import ClientParent

STDIO = ("stdin", "stdout", "stderr")
SIGTERM = 15


def prepare() -> Callable[[Packet, Wire], bool]:
    """Imports what jobs use, and makes the executable that all of them share."""
    import importlib

    from ctr_common.spec import load
    from ctr_init import inside
    from ctr_supervisor.cli import interrupts
    from ctr_supervisor.process.parent import executable

    for module in PRELOADED:
        importlib.import_module(module)
    load.keep_what_is_right()
    # Sent by Job.end, when the client is gone: what is half made is undone first.
    interrupts.come_by(SIGTERM)
    binary = executable()
    home = inside.find_home()

    def serve(packet: Packet, reports: Wire) -> bool:
        return serve_job(packet, reports, binary.fileno(), home)

    return serve


# What start-up paths import inside functions, and rarer things that many jobs need.
PRELOADED = (
    "ctr_common.hooks",
    "ctr_init.inside",
    "ctr_common.spec.validate_linux",
    "ctr_common.spec.validate_process",
    "ctr_criu_bridge.server",
    "ctr_init.plan",
    "ctr_init.tmpcopyup",
    "ctr_init.worker",
    "ctr_supervisor.cgroups.v1",
    "ctr_supervisor.cgroups.v2",
    "ctr_supervisor.cli.checkpoint",
    "ctr_supervisor.cli.create",
    "ctr_supervisor.cli.delete",
    "ctr_supervisor.cli.exec",
    "ctr_supervisor.cli.kill",
    "ctr_supervisor.cli.list",
    "ctr_supervisor.cli.main",
    "ctr_supervisor.cli.run",
    "ctr_supervisor.cli.start",
    "ctr_supervisor.cli.state",
    "ctr_supervisor.engine.checkpoint",
    "ctr_supervisor.engine.create",
    "ctr_supervisor.engine.delete",
    "ctr_supervisor.engine.exec",
    "ctr_supervisor.engine.kill",
    "ctr_supervisor.engine.list",
    "ctr_supervisor.engine.restore",
    "ctr_supervisor.engine.run",
    "ctr_supervisor.engine.seccomp",
    "ctr_supervisor.engine.start",
    "ctr_supervisor.service.parents",
    "ctr_supervisor.process.console",
    "ctr_supervisor.service.requests",
    "termios",
)


def serve_job(packet: Packet, reports: Wire, executable: int, home: int) -> bool:
    """Does the job.

    Args:
        executable: ctr-init in a sealed memfd.
        home: see Parent.

    Returns:
        Whether it went as it should, so that the process may do another one.
    """
    job = packet.get("job", int, 0)
    reports.send("taken", None, job=job, pid=os.getpid())
    kind = packet.get("kind", str, "")
    _kernel.prctl(PR_SET_NAME, f"ctr-job:{kind}\0".encode())
    if kind != "command":
        environment.put_back()
    if kind == "request":
        from ctr_supervisor.service import requests

        return requests.serve(packet, reports, job, home)
    from ctr_supervisor.service.parents import ClientParent

    with Wire(packet.take_fd("connection"), "client") as client:
        # The supervisor, which must never wait, has the same open file.
        os.set_blocking(client.fileno(), True)
        if kind == "command":
            parent = ClientParent(client, executable, home)
            status = serve_command(packet, parent, lambda: reports.send("done", None, job=job))
        else:
            status = serve_finish(packet, client, lambda: reports.send("done", None, job=job))
    return status == 0


def serve_command(packet: Packet, parent: "ClientParent", report_done: Callable[[], None]) -> int:
    """Runs a whole command line in the client's place.

    Args:
        report_done: called before the client hears of its end, so that what it asks next is answered by what is now.

    Returns:
        The exit status.
    """
    from ctr_supervisor.cli import interrupts
    from ctr_supervisor.cli.main import main

    put_on_surroundings(packet)
    argv = packet.texts("argv")
    sys.argv = argv
    try:
        status = main(argv[1:], parent)
        report_done()
        if not parent.handed_over:
            try:
                parent.settle()
            except CtrError:
                # What the client could not do made the command fail, and has been told.
                pass
            try:
                parent.wire.send("exit", None, status=status)
            except ProtocolError:
                # The client is gone; there is nobody to be told.
                pass
    finally:
        interrupts.release()
    return status


def put_on_surroundings(packet: Packet) -> None:
    """Makes stdio, working directory, umask and environment of this process the client's."""
    for number, name in enumerate(STDIO):
        if name in packet.fd_names:
            with Fd(packet.take_fd(name)) as fd:
                os.dup2(fd.fileno(), number)
        else:
            try:
                os.close(number)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
    with Fd(packet.take_fd("cwd")) as directory:
        os.fchdir(directory.fileno())
    os.umask(packet.get("umask", int, 0o022) & 0o777)
    environment.put_on(packet.texts("env"))


def serve_finish(packet: Packet, client: Wire, report_done: Callable[[], None]) -> int:
    """Deletes a container whose process, which a client attended, has ended; unless it is another one by now."""
    from ctr_supervisor.engine import container as containers
    from ctr_supervisor.engine import run
    from ctr_supervisor.engine.runtime import Runtime

    status = 0
    try:
        found = containers.load(Runtime(packet.get("root", str, "")), packet.get("id", str, ""))
        if found.pid == packet.get("pid", int, 0) and not found.is_alive():
            run.destroy(found)
    except CtrError as error:
        status = 1
        client.send_error(error)
    report_done()
    if status == 0:
        client.send("exit", None, status=status)
    return status
