"""A Docker of the tests' own: daemon, socket, images, cgroups."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.clients.daemons import CLEAN_ENV, Daemon, remove_cgroups
from tests.support.command import Result, run
from tests.support.terminal import Terminal


class Docker:
    """A running dockerd and the docker command for it.

    Args:
        directory: where all of its files go; made here.
        runtime: the OCI runtime, known to it as `ctrun` and its default.
        cgroup: name of the parent cgroup of all containers.
        driver: who makes the cgroups, `cgroupfs` or `systemd`.
        experimental: with features that are experiments to Docker, such as checkpoints.
    """

    def __init__(
        self, directory: Path, runtime: Path, cgroup: str, driver: str = "cgroupfs", *, experimental: bool = False
    ) -> None:
        directory.mkdir()
        self.directory = directory
        self.cgroup = cgroup
        # the distribution's command belongs to the distribution's daemon
        self.command = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else shutil.which("docker")
        self.env = {
            **CLEAN_ENV,
            "DOCKER_HOST": f"unix://{directory}/socket",
            "DOCKER_CONFIG": str(directory / "client"),
            # the classic builder runs its steps through the daemon's runtime
            "DOCKER_BUILDKIT": "0",
        }
        config = {
            "hosts": [self.env["DOCKER_HOST"]],
            "data-root": str(directory / "data"),
            "exec-root": str(directory / "exec"),
            "pidfile": str(directory / "pid"),
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            # a name without dashes: those would make it a slice in a slice
            "cgroup-parent": f"/{cgroup}" if driver == "cgroupfs" else f"{cgroup.replace('-', '')}.slice",
            "exec-opts": [f"native.cgroupdriver={driver}"],
            "runtimes": {"ctrun": {"path": str(runtime)}, "less-capable": {"path": str(self._less_capable(runtime))}},
            "default-runtime": "ctrun",
            "experimental": experimental,
        }
        (directory / "daemon.json").write_text(json.dumps(config))
        self.daemon = Daemon(["dockerd", "--config-file", directory / "daemon.json"], directory)
        self.daemon.wait_until_ready(lambda: self("version").code == 0)

    def _less_capable(self, runtime: Path) -> Path:
        wrapper = self.directory / "less-capable"
        script = Path(__file__).with_name("less_capable.py")
        words = [sys.executable, "-I", str(script), str(runtime)]
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        wrapper.chmod(0o755)
        return wrapper

    def stop(self) -> None:
        """Ends the daemon and removes what it leaves on the host."""
        self.daemon.stop()
        remove_cgroups(self.cgroup)

    def __call__(self, *args: str | Path, timeout: float = 60, stdin: str | None = None) -> Result:
        """Runs one docker command to its end."""
        __tracebackhide__ = True
        return run(str(self.command), *args, timeout=timeout, stdin=stdin, env=self.env)

    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Runs one docker command on a terminal."""
        return Terminal(str(self.command), *args, rows=rows, columns=columns, env=self.env)

    def inspect(self, name: str) -> dict[str, Any]:
        """All that the daemon tells about a container."""
        __tracebackhide__ = True
        found: list[dict[str, Any]] = json.loads(self("inspect", name).text)
        return found[0]

    def status(self, name: str) -> str:
        """Status of a container: created, running, paused, exited …"""
        __tracebackhide__ = True
        return str(self.inspect(name)["State"]["Status"])
