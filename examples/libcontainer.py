#!/usr/bin/env python3
"""The sample of libcontainer's README in Python: a container with everything said, and bash as its init.

usage: libcontainer.py ROOTFS [COMMAND [ARGUMENT...]]

ROOTFS is the directory of a root file system that belongs to the host's user 1000 (see the id mappings), with the user
"daemon" and a shell in it. It needs root. From a checkout: PYTHONPATH=. .venv/bin/python examples/libcontainer.py …
"""

import os
import sys

import ctr_supervisor as libcontainer
from ctr_supervisor.api.types import Config

CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
MOUNT_OPTIONS = ["noexec", "nosuid", "nodev"]


def configuration(rootfs: str) -> Config:
    """What the container is to be, in the words of the OCI runtime specification."""
    return {
        "ociVersion": "1.3.0",
        "root": {"path": os.path.abspath(rootfs)},
        "hostname": "testing",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": MOUNT_OPTIONS},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755"],
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
                "options": [*MOUNT_OPTIONS, "mode=1777", "size=65536k"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": MOUNT_OPTIONS},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*MOUNT_OPTIONS, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", "pid", "user", "network", "cgroup")],
            "cgroupsPath": f"/system/test-container-{os.getpid()}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 65536}],
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
        },
    }


def look_at(container: libcontainer.Container) -> None:
    """Further ways to deal with a running container."""
    # pids of all processes in the container
    print("processes:", container.processes(), file=sys.stderr)
    # figures about CPU time, memory, I/O and networks
    print("memory:", container.stats()["memory"]["usage"]["usage"], file=sys.stderr)
    # all processes stop, and go on
    container.pause()
    print("status:", container.status, file=sys.stderr)
    container.resume()
    # other limits
    container.set({"pids": {"limit": 100}})
    # what hooks are told of it
    print("state:", container.state["id"], container.state["pid"], file=sys.stderr)


def main() -> int:
    """Runs the container; returns the exit status of its process."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    rootfs, *command = sys.argv[1:]
    container = libcontainer.create(
        os.environ.get("STATE_ROOT", "/run/containers"),
        f"container-id-{os.getpid()}",
        configuration(rootfs),
        networks=[{"type": "loopback"}],
    )
    # In a with block it is destroyed in the end, whatever happens.
    with container:
        process = libcontainer.Process(
            command or ["/bin/bash"],
            env={"PATH": "/bin"},
            user="daemon",
            stdin=sys.stdin,
            stdout=sys.stdout,
            stderr=sys.stderr,
            capabilities={
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
                "ambient": CAPABILITIES,
            },
            rlimits={"RLIMIT_NOFILE": 1025},
            init=True,
        )
        container.run(process)

        try:
            look_at(container)
        except libcontainer.WrongState:
            pass  # a short command has ended by now
        return process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
