"""A Podman of the tests' own: images, containers, networks and configuration below one directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clients.daemons import CLEAN_ENV, kill_users_of, remove_cgroups, unmount_below
from tests.clients.users import User
from tests.support.command import Result, run
from tests.support.needs import lacking
from tests.support.terminal import Terminal

# Podman's own default raises both limits, which a root without CAP_SYS_RESOURCE may not.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = {pids_limit}
[engine]
cgroup_manager = "{driver}"
events_logger = "file"
infra_image = "localhost/pause"
runtime = "ctrun"
[engine.runtimes]
ctrun = ["{runtime}"]
[network]
network_config_dir = "{directory}/networks"
"""

STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{directory}/storage"
runroot = "{directory}/run"
[storage.options]
root-auto-userns-user = "{user}"
"""


class Podman:
    """The podman command with a configuration of its own.

    Args:
        directory: where all of its files go; made here.
        runtime: the OCI runtime, known to it as `ctrun` and its default.
        user: the ordinary user whose subordinate ids `--userns=auto` hands out.
        rootless: the command is run by that user, not by root.
        driver: who makes the cgroups, `cgroupfs` or `systemd`.
    """

    def __init__(
        self, directory: Path, runtime: Path, user: User, rootless: bool = False, driver: str = "cgroupfs"
    ) -> None:
        self.directory = directory
        self.user = user if rootless else None
        directory.mkdir()
        (directory / "networks").mkdir()
        (directory / "runtime-dir").mkdir(mode=0o700)
        # its default, and none where there is nobody to hold it
        pids_limit = 0 if lacking("needs_limits") else 2048
        settings = CONTAINERS_CONF.format(runtime=runtime, directory=directory, driver=driver, pids_limit=pids_limit)
        (directory / "containers.conf").write_text(settings)
        # a kernel-made overlay needs no privilege since 5.11, but its whiteouts do on some hosts; vfs always works
        storage = "vfs" if rootless else "overlay"
        (directory / "storage.conf").write_text(
            STORAGE_CONF.format(driver=storage, directory=directory, user=user.name)
        )
        self.env = {
            **CLEAN_ENV,
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        }
        if self.user is not None:
            self.env |= {"HOME": str(user.home), "XDG_RUNTIME_DIR": str(directory / "runtime-dir")}
            user.own(directory)
        self.storage_flags = ["--root", f"{directory}/storage", "--runroot", f"{directory}/run"]
        self.command = ["podman", *self.storage_flags, "--tmpdir", f"{directory}/tmp"]
        if self.user is not None:
            self.command = self.user.command(*self.command)

    def stop(self) -> None:
        """Removes all that was made, and what it leaves on the host."""
        self._try("pod", "rm", "--all", "--force", "--time", "0")
        self._try("rm", "--all", "--force", "--time", "0")
        kill_users_of(self.directory)
        self._try("system", "reset", "--force")
        kill_users_of(self.directory)
        unmount_below(self.directory)
        # the parent that Podman gives to every container of the host; it stays where somebody else uses it
        remove_cgroups("libpod_parent")

    def _try(self, *args: str) -> None:
        try:
            self(*args, timeout=20)
        except AssertionError as error:
            print(f"ignoring: {error}")

    def __call__(self, *args: str | Path, timeout: float = 60, stdin: str | None = None) -> Result:
        """Runs one podman command to its end."""
        __tracebackhide__ = True
        return run(*self.command, *args, timeout=timeout, stdin=stdin, env=self.env, cwd=self.directory)

    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Runs one podman command on a terminal."""
        return Terminal(*self.command, *args, rows=rows, columns=columns, env=self.env)

    def inspect(self, name: str) -> dict[str, Any]:
        """All that it tells about a container."""
        __tracebackhide__ = True
        found: list[dict[str, Any]] = json.loads(self("container", "inspect", name).text)
        return found[0]

    def status(self, name: str) -> str:
        """Status of a container."""
        __tracebackhide__ = True
        return str(self.inspect(name)["State"]["Status"])
