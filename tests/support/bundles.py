"""Bundles for tests: a busybox root file system and a config.json like that of `runc spec`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.slowness import SLOWNESS

Config = dict[str, Any]
Mutator = Callable[[Config], None]

ROOT = Path(__file__).parents[2]
MAKE_ROOTFS = ROOT / "examples/bundle/make-rootfs"
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def make_rootfs(directory: Path) -> None:
    """Fills a new directory with the example's busybox root file system."""
    subprocess.run([MAKE_ROOTFS, directory], check=True, timeout=30 * SLOWNESS)


def copy_rootfs(template: Path, directory: Path) -> None:
    """A copy that a container may write to and spoil; the template and its files are left alone."""
    shutil.copytree(template, directory, symlinks=True)


def default_config() -> Config:
    """What `runc spec` prints, less the terminal, and with `true` as the process."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "testhost",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def rootless_config() -> Config:
    """What `runc spec --rootless` prints for the user who runs the tests, less the terminal."""
    config = default_config()
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user")]
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in ("/sys", "/sys/fs/cgroup")]
    config["mounts"].append(
        {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        }
    )
    for mount in config["mounts"]:
        mount["options"] = [option for option in mount.get("options", []) if not option.startswith("gid=")]
    del config["linux"]["resources"]
    return config


class Bundles:
    """Makes bundles below one directory.

    Args:
        directory: an existing directory.
        template: the root file system that each bundle gets a copy of.
    """

    def __init__(self, directory: Path, template: Path) -> None:
        self.directory = directory
        self.template = template
        self.count = 0

    def __call__(
        self,
        mutate: Mutator | None = None,
        *,
        args: list[str] | None = None,
        writable: bool = False,
        rootless: bool = False,
    ) -> Path:
        """The directory of a new bundle.

        Args:
            mutate: changes the config before it is written.
            args: `process.args`.
            writable: the root file system is not read-only.
            rootless: the config of `runc spec --rootless`.
        """
        self.count += 1
        bundle = self.directory / f"bundle{self.count}"
        bundle.mkdir()
        copy_rootfs(self.template, bundle / "rootfs")
        config = rootless_config() if rootless else default_config()
        config["root"]["readonly"] = not writable
        if args is not None:
            config["process"]["args"] = args
        if mutate is not None:
            mutate(config)
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle
