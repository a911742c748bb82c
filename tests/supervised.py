"""Runs tests with every `ctrun` served by a supervisor: python -m tests.supervised [PYTEST ARGUMENT…]

Without arguments, the tests of the command line and of the engines that call it.
The runtime under test (and so that of Docker, Podman and containerd) is a script that runs `ctrun --supervisor=SOCKET`.
The exit status is pytest's; it is 1 as well when the supervisor did not live through the tests, or served none of them.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ctr_common.fd import Fd
from ctr_common.wire import Wire
from tests.support.slowness import SLOWNESS

# What has supervisors of its own, or calls no command, is left to the other run.
ELSEWHERE = ("tests/integration/api", "tests/integration/service")
DEFAULT = ("-q", "tests/integration", "tests/clients", *(f"--ignore={path}" for path in ELSEWHERE))

ROOT = Path(__file__).parents[1]
# To be there, and to end.
PATIENCE = 20.0


def main() -> int:
    """Starts a supervisor, runs pytest, and looks whether the supervisor was used; returns the exit status."""
    # See `pytest_configure` in conftest.py: the supervisor and its workers come before it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    with tempfile.TemporaryDirectory(prefix="ctrsup-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        listening = directory / "s/supervisor.sock"
        runtime = directory / "ctrun"
        runtime.write_text(f'#!/bin/sh\nexec {shlex.quote(str(ROOT / "bin/ctrun"))} --supervisor={listening} "$@"\n')
        runtime.chmod(0o755)
        with (directory / "log").open("wb") as log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(os.fspath(directory / "notify"))
            supervisor = subprocess.Popen(
                [ROOT / "bin/ctr-supervisor", "--root", directory / "state", "--socket", listening],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "NOTIFY_SOCKET": os.fspath(directory / "notify")},
            )
            ready = is_ready(told, supervisor)
        try:
            if not ready:
                raise SystemExit("the supervisor did not start")
            tests = subprocess.run(
                [sys.executable, "-m", "pytest", *(sys.argv[1:] or DEFAULT)],
                env={**os.environ, "CTR_TEST_RUNTIME": str(runtime), "CTR_TEST_SUPERVISOR": str(listening)},
                check=False,
            )
            served = 0 if supervisor.poll() is not None else commands_served(listening)
        finally:
            supervisor.terminate()
            supervisor.wait(PATIENCE)
        sys.stdout.write((directory / "log").read_text(errors="replace"))
        print(f"the supervisor served {served} commands and ended with {supervisor.returncode}")
        return tests.returncode or int(served == 0 or supervisor.returncode != 0)


def is_ready(told: socket.socket, supervisor: subprocess.Popen[bytes]) -> bool:
    """Waits until the supervisor tells that it serves (sd_notify(3)); whether it does."""
    with Fd(os.pidfd_open(supervisor.pid)) as end:
        poll = select.poll()
        poll.register(told, select.POLLIN)
        poll.register(end.fileno(), select.POLLIN)
        while told.fileno() in dict(poll.poll(PATIENCE * SLOWNESS * 1000)):
            if b"READY=1" in told.recv(4096).splitlines():
                return True
    return False


def commands_served(path: Path) -> int:
    """How many command lines the supervisor has taken."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    connected.connect(os.fspath(path))
    with Wire(connected.detach(), "supervisor") as wire:
        wire.send("hello", None, version=1, client="tests")
        wire.expect("hello", timeout=PATIENCE).close()
        wire.send("status")
        with wire.expect("result", timeout=PATIENCE) as status:
            count: int = status.get("commands", int, 0)
            return count


if __name__ == "__main__":
    sys.exit(main())
