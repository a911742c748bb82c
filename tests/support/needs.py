"""What a test says it needs, and how it is found out whether this host has it.

Each marker `needs_NAME` has one function here: it returns an empty string, or what the host lacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.runtime import ROOT, runtime_under_test
from tests.support.slowness import SLOWNESS


def _command(*names: str) -> str:
    missing = [name for name in names if not shutil.which(name)]
    return f"not installed: {' '.join(missing)}" if missing else ""


def _works(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=20 * SLOWNESS, check=False).returncode == 0
    except OSError:
        return False


def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def _plain_user() -> str:
    return "" if os.geteuid() != 0 else "needs an ordinary user"


def _direct() -> str:
    return "looks at the process of a direct command" if os.environ.get("CTR_TEST_SUPERVISOR") else ""


def cgroup_mounts(fstype: str) -> list[Path]:
    """Where cgroups are mounted; others, of a CRIU that was killed for instance, are nobody's to use."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [
        Path(words[4])
        for words in lines
        if words[words.index("-") + 1] == fstype and words[4].startswith("/sys/fs/cgroup")
    ]


def _cgroup_v1() -> str:
    return "" if cgroup_mounts("cgroup") else "needs cgroup v1"


def _cgroup_v2() -> str:
    for mount in cgroup_mounts("cgroup2"):
        if {"memory", "pids"} <= set((mount / "cgroup.controllers").read_text().split()):
            return ""
    return "needs cgroup v2"


def _limits() -> str:
    return _cgroup_v1() and _cgroup_v2() and "needs cgroup controllers"


def _systemd() -> str:
    # sd_booted(3)
    return "" if os.path.isdir("/run/systemd/system") else "needs systemd"


def _apparmor() -> str:
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        enabled = False
    return _command("apparmor_parser") if enabled else "needs AppArmor"


def _ctrun() -> str:
    return "" if runtime_under_test().exists() else "bin/ctrun is not built"


def _ctr_init() -> str:
    return "" if (ROOT / "bin/ctr-init").exists() else "bin/ctr-init is not built"


def _docker() -> str:
    return _command("dockerd", "docker", "containerd") or _root()


def _podman() -> str:
    return _command("podman", "conmon") or _root()


def _containerd() -> str:
    return _command("containerd", "ctr", "containerd-shim-runc-v2") or _root()


def _criu() -> str:
    from tests.support import criu

    try:
        criu.find()
    except criu.Unavailable as error:
        return f"needs criu: {error}"
    return ""


def _criu_feature(*names: str) -> str:
    from tests.support import criu

    lacking_criu = _criu()
    if lacking_criu:
        return lacking_criu
    missing = [name for name in names if not criu.has_feature(name)]
    return f"needs a kernel with criu's {' '.join(missing)}" if missing else ""


def _user_namespaces() -> str:
    return "" if _works("unshare", "--user", "--map-root-user", "true") else "needs user namespaces"


def _network_namespaces() -> str:
    script = "ip link add dev veth0 type veth peer name veth1 && ip link add dev br0 type bridge"
    return "" if _works("unshare", "--net", "sh", "-c", script) else "needs network namespaces"


NEEDS: dict[str, Callable[[], str]] = {
    "needs_root": _root,
    "needs_plain_user": _plain_user,
    "needs_direct": _direct,
    "needs_cgroup_v1": _cgroup_v1,
    "needs_cgroup_v2": _cgroup_v2,
    "needs_limits": _limits,
    "needs_systemd": _systemd,
    "needs_apparmor": _apparmor,
    "needs_ctrun": _ctrun,
    "needs_ctr_init": _ctr_init,
    "needs_runc": lambda: _command("runc"),
    "needs_crun": lambda: _command("crun"),
    "needs_docker": _docker,
    "needs_podman": _podman,
    "needs_containerd": _containerd,
    "needs_criu": _criu,
    "needs_busybox": lambda: _command("busybox"),
    "needs_cc": lambda: _command("cc", "make"),
    "needs_user_namespaces": _user_namespaces,
    "needs_network_namespaces": _network_namespaces,
}


@cache
def lacking(marker: str, *args: str) -> str:
    """What the host lacks for a marker; an empty string if nothing.

    Args:
        marker: name of the marker.
        args: its arguments.
    """
    if marker == "needs_command":
        return _command(*args)
    if marker == "needs_criu_feature":
        return _criu_feature(*args)
    if marker == "needs_file":
        missing = [path for path in args if not os.path.exists(path)]
        return f"not there: {' '.join(missing)}" if missing else ""
    return NEEDS[marker]()
