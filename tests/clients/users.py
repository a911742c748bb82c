"""An ordinary user, made for the tests and removed after them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.support.command import run


class User:
    """A user with subordinate ids and a home of its own.

    Args:
        name: name of the new user.
        home: its home directory, made here.
    """

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        # Not the next free one: in a chroot that has a list of users of its own it would be that of somebody outside,
        # and the processes of both would be killed in the end.
        taken = {entry.pw_uid for entry in pwd.getpwall()}
        uid = next(uid for uid in range(20000 + os.getpid() % 35000, 60000) if uid not in taken)
        run("useradd", "--uid", str(uid), "--create-home", "--home-dir", home, "--shell", "/bin/sh", name).ok()
        entry = pwd.getpwnam(name)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        if not any(line.startswith(f"{name}:") for line in Path("/etc/subuid").read_text().splitlines()):
            run("usermod", "--add-subuids", "300000-365535", "--add-subgids", "300000-365535", name).ok()

    def first_subordinate_id(self) -> int:
        """The first of the user's subordinate user ids."""
        line = next(line for line in Path("/etc/subuid").read_text().splitlines() if line.startswith(f"{self.name}:"))
        return int(line.split(":")[1])

    def own(self, top: Path) -> None:
        """Gives a directory, with all that is in it now, to the user."""
        os.chown(top, self.uid, self.gid)
        for directory, names, files in os.walk(top):
            for name in [*names, *files]:
                os.chown(os.path.join(directory, name), self.uid, self.gid, follow_symlinks=False)

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` as this user, in the environment as it is."""
        return ["runuser", "--preserve-environment", "--user", self.name, "--", *argv]

    def remove(self) -> None:
        """Removes the user; its processes are killed first."""
        run("pkill", "-KILL", "-u", str(self.uid))
        run("userdel", "--force", "--remove", self.name).ok()
