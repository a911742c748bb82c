"""An ordinary user who is logged in as far as systemd is concerned."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.support.command import Result, run
from tests.support.waiting import until


class SessionUser:
    """A user with subordinate ids, a home and a running user manager.

    Args:
        name: name of the new user.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.home = Path("/var/lib", name)
        run("useradd", "--create-home", "--home-dir", self.home, "--shell", "/bin/sh", name).ok()
        entry = pwd.getpwnam(name)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        run("loginctl", "enable-linger", name).ok()
        self.runtime_directory = Path(f"/run/user/{self.uid}")
        # the bus answers when the manager is ready for requests
        until("the user's manager is up", lambda: self.run("systemctl", "--user", "is-system-running").code in (0, 1))
        until("the user's bus is there", (self.runtime_directory / "bus").exists)

    def env(self) -> dict[str, str]:
        """The environment of a login."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "USER": self.name,
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.runtime_directory),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.runtime_directory}/bus",
        }

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` as this user, in the environment as it is."""
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", *argv]

    def run(self, *argv: str | Path, timeout: float = 30) -> Result:
        """Runs a command as this user, outside of the user's own cgroups."""
        __tracebackhide__ = True
        return run(*self.command(*map(str, argv)), timeout=timeout, env=self.env(), cwd="/")

    def run_in_scope(self, *argv: str | Path, timeout: float = 30) -> Result:
        """Runs a command as this user in a scope of the user's manager, as a terminal program would be."""
        __tracebackhide__ = True
        # only the user's own manager may take a process over, and only from cgroups of the user: so a service of it
        # starts the command, and hands its output on
        flags = ["--user", "--wait", "--pipe", "--quiet", "--collect", "--property=Delegate=yes"]
        env = [f"--setenv={name}={value}" for name, value in self.env().items()]
        return self.run("systemd-run", *flags, *env, "--", *argv, timeout=timeout)

    def own(self, top: Path) -> None:
        """Gives a directory, with all that is in it now, to the user."""
        os.chown(top, self.uid, self.gid)
        for directory, names, files in os.walk(top):
            for name in [*names, *files]:
                os.chown(os.path.join(directory, name), self.uid, self.gid, follow_symlinks=False)

    def remove(self) -> None:
        """Ends all that the user runs and removes the user."""
        run("loginctl", "disable-linger", self.name)
        run("loginctl", "terminate-user", self.name)
        run("systemctl", "stop", f"user@{self.uid}.service", f"user-{self.uid}.slice")
        run("pkill", "-KILL", "-u", str(self.uid))
        run("userdel", "--force", "--remove", self.name).ok()
