"""Runs tests with every `ctrun` served by a supervisor: python -m tests.supervised [PYTEST ARGUMENT…]

Without arguments, the tests of the command line and of the engines that call it.
The runtime under test (and so that of Docker, Podman and containerd) is a script that runs `ctrun --supervisor=SOCKET`.
The exit status is pytest's; it is 1 as well when the supervisor did not live through the tests, or served none of them.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ctr_common.wire import Wire

# What has supervisors of its own, or calls no command, is left to the other run.
ELSEWHERE = ("tests/integration/api", "tests/integration/service")
DEFAULT = ("-q", "tests/integration", "tests/clients", *(f"--ignore={path}" for path in ELSEWHERE))

ROOT = Path(__file__).parents[1]
# To be there, and to end.
PATIENCE = 20.0


def main() -> int:
    """Starts a supervisor, runs pytest, and looks whether the supervisor was used; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="ctrsup-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        listening = directory / "s/supervisor.sock"
        runtime = directory / "ctrun"
        runtime.write_text(f'#!/bin/sh\nexec {shlex.quote(str(ROOT / "bin/ctrun"))} --supervisor={listening} "$@"\n')
        runtime.chmod(0o755)
        with (directory / "log").open("wb") as log:
            command = [ROOT / "bin/ctr-supervisor", "--root", directory / "state", "--socket", listening]
            supervisor = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            await_socket(listening, supervisor)
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


def await_socket(path: Path, supervisor: subprocess.Popen[bytes]) -> None:
    """Waits until the supervisor answers."""
    deadline = time.monotonic() + PATIENCE
    while supervisor.poll() is None and time.monotonic() < deadline:
        try:
            commands_served(path)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the supervisor did not start")


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
