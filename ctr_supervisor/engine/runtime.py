"""What every verb needs to know of its surroundings: state root, privileges, options of the command line."""

import os

from ctr_common.errors import CtrError
from ctr_common.userns import in_initial_user_namespace
from ctr_supervisor.process.parent import Parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Runtime", "in_initial_user_namespace"]


class Runtime:
    """The surroundings of one command.

    Args:
        root: state root; the containers are directories below it.
        systemd_cgroup: let systemd make the cgroups.
        rootless: "true", "false" or "auto": whether failures in making and setting cgroups are tolerated.
        criu: path of the criu binary, "" for the one on PATH.
        debug: write debug lines to the log.
        log: called with a level ("debug", "info", "warning", "error") and a line.
        parent: whose children container processes are; None for this process itself.

    Attributes:
        rootless_euid: this process is not root in its user namespace.
        rootless_cgroups: this process is unlikely to have full access to cgroups.
    """

    __slots__ = ("_log", "criu", "debug", "parent", "root", "rootless_cgroups", "rootless_euid", "systemd_cgroup")

    def __init__(
        self,
        root: str,
        *,
        systemd_cgroup: bool = False,
        rootless: str = "auto",
        criu: str = "",
        debug: bool = False,
        log: "Callable[[str, str], None] | None" = None,
        parent: "Parent | None" = None,
    ) -> None:
        self.root = root
        self.parent = parent or Parent()
        self.systemd_cgroup = systemd_cgroup
        self.criu = criu
        self.debug = debug
        self._log = log
        self.rootless_euid = os.geteuid() != 0
        if rootless == "auto":
            self.rootless_cgroups = self.rootless_euid or not in_initial_user_namespace()
        else:
            self.rootless_cgroups = rootless == "true"

    def warn(self, line: str) -> None:
        """A line for the log about something that was not fatal."""
        if self._log is not None:
            self._log("warning", line)

    def note(self, line: str) -> None:
        """A line for the log when --debug was given."""
        if self.debug and self._log is not None:
            self._log("debug", line)

    def ignore(self, error: CtrError) -> None:
        """Tells the log of a failure that does not stop anything."""
        self.warn(f"ignoring: {error}")

    @property
    def seccomp_cache(self) -> str:
        """Directory for compiled seccomp filters, "" where this user has no run-time directory."""
        if not self.rootless_euid:
            return "/run/ctrun-cache/seccomp"
        base = os.environ.get("XDG_RUNTIME_DIR", "")
        return f"{base}/ctrun-cache/seccomp" if base.startswith("/") else ""
