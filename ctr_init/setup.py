"""The state of a setup under way, which the steps share."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.channel import Channel
    from ctr_init.inside import Engine
    from ctr_init.plan import SetupPlan


class Piece:
    """One thing that a step does for a configuration.

    Args:
        detail: what, for a reader of the step list.
        json_path: place in config.json that asks for it.
        argument: what the step's function gets.
    """

    __slots__ = ("argument", "detail", "json_path")

    def __init__(self, detail: str, json_path: str = "", argument: "Any" = None) -> None:
        self.detail = detail
        self.json_path = json_path
        self.argument = argument


class Setup:
    """What the worker holds between two steps; its fds live as long as the worker, which is a few milliseconds.

    Attributes:
        plan: what is to be done.
        channel: to the engine.
        in_pid_namespace: there is no pid namespace to join: the worker was born in it, or does without.
        pid_namespace: fd of the pid namespace that a procfs has to show; -1 for the one of this process.
        staged: the mount namespace was joined before, and apart from, the others.
        root: the container's root directory, on the mount that will be its root mount.
        sources: detached mounts of bind sources that were opened with the host's credentials, by index in `.mounts`.
        read_only_later: mounts that become read-only once all is in place.
        directory: path and fd of the directory that was last opened for device nodes.
        null: the container's /dev/null, verified.
        empty: the empty, read-only tmpfs on the first masked directory.
        proc: root of a private procfs.
        host_mounts: the mount namespace that the worker came from, as long as it has the host's credentials; else -1.
        host_root: path of the caller's root directory in the mount namespace, empty when they are the same.
        hook_pid: the container process's pid as its own pid namespace has it; 0 as long as nobody needs it.
    """

    __slots__ = (
        "channel",
        "directory",
        "empty",
        "hook_pid",
        "host_mounts",
        "host_root",
        "in_pid_namespace",
        "null",
        "pid_namespace",
        "plan",
        "proc",
        "read_only_later",
        "root",
        "sources",
        "staged",
    )

    def __init__(self, plan: "SetupPlan", channel: "Channel | Engine", in_pid_namespace: bool) -> None:
        self.plan = plan
        self.channel = channel
        self.in_pid_namespace = in_pid_namespace
        self.pid_namespace = -1
        self.staged = False
        self.root = -1
        self.sources: dict[int, int] = {}
        self.read_only_later: list[int] = []
        self.directory = ("", -1)
        self.null = -1
        self.empty = -1
        self.proc = -1
        self.host_mounts = -1
        self.host_root = ""
        self.hook_pid = 0

    def close(self) -> None:
        """Closes every fd; for a process that lives on."""
        fds = [self.root, *self.sources.values(), *self.read_only_later, self.directory[1]]
        for fd in (*fds, self.null, self.empty, self.proc, self.pid_namespace):
            if fd >= 0:
                os.close(fd)
