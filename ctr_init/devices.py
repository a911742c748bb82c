"""Device nodes and the symlinks of /dev.

Everything is made by fd in a directory that was resolved inside the root: a /dev that is a symlink leads to another
directory of the image and never to one of the host (CVE-2026-41579).
"""

import os
import stat

from ctr_common.errors import SetupError
from ctr_common.kernel.constants import CLONE_NEWUSER
from ctr_init import attach, bind, requests, resolve, rootfs
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Device
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup

# runtime-spec, config-linux.md, "Default Devices"; /dev/ptmx and /dev/console are made elsewhere.
DEFAULT_DEVICES: "tuple[Device, ...]" = (
    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
    {"path": "/dev/random", "type": "c", "major": 1, "minor": 8},
    {"path": "/dev/full", "type": "c", "major": 1, "minor": 7},
    {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0},
    {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5},
    {"path": "/dev/urandom", "type": "c", "major": 1, "minor": 9},
)

TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


def makes_dev(plan: "SetupPlan") -> bool:
    """Whether /dev is ours to fill: it is not where the user shows a /dev of their own by a bind mount."""
    if not rootfs.has_mount_namespace(plan):
        return False
    return not any(request.is_bind and request.destination == "/dev" for request in requests.of_plan(plan))


def pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: device nodes, the configured ones in the place of default ones."""
    if not makes_dev(plan):
        return []
    configured = (plan.config.get("linux") or {}).get("devices") or []
    result = []
    for index, device in enumerate(configured):
        if resolve.clean(device["path"]) != "/dev/ptmx":
            result.append(Piece(_detail(device), f".linux.devices[{index}]", device))
    taken = {resolve.clean(device["path"]) for device in configured}
    result += [Piece(_detail(device), "", device) for device in DEFAULT_DEVICES if device["path"] not in taken]
    return result


def _detail(device: "Device") -> str:
    numbers = "" if device["type"] == "p" else f" {device.get('major', 0)}:{device.get('minor', 0)}"
    return f"{device['path']} {device['type']}{numbers} {device.get('fileMode', 0o666):04o}"


def create(setup: "Setup", device: "Device") -> None:
    """Makes one device node, or shows the host's where nodes cannot be made.

    Raises:
        OSError, SetupError: neither was possible.
    """
    if device["type"] not in TYPES:
        raise SetupError(f"unknown device type {device['type']!r}, expected one of b, c, p, u", path=device["path"])
    directory, name = _open_parent(setup, device["path"])
    if setup.plan.join_flags & CLONE_NEWUSER and device["type"] != "p":
        _bind(directory, name, device["path"])
        return
    number = 0 if device["type"] == "p" else os.makedev(device.get("major", 0), device.get("minor", 0))
    try:
        os.mknod(name, TYPES[device["type"]] | device.get("fileMode", 0o666) & 0o7777, number, dir_fd=directory)
    except FileExistsError:
        return
    except PermissionError:
        _bind(directory, name, device["path"])
        return
    uid, gid = device.get("uid", 0), device.get("gid", 0)
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)


def _open_parent(setup: "Setup", path: str) -> "tuple[int, str]":
    """The directory for an entry; the last one stays open, since most entries are in /dev."""
    head, _, name = resolve.clean(path).rpartition("/")
    if not name:
        raise SetupError("a device cannot be made over the root directory", path=path)
    if setup.directory[1] < 0 or setup.directory[0] != head:
        if setup.directory[1] >= 0:
            os.close(setup.directory[1])
        setup.directory = (head, resolve.create(setup.root, head or "/")[0])
    return setup.directory[1], name


def _bind(directory: int, name: str, path: str) -> None:
    tree = bind.copy_of(path, recursive=False)
    try:
        try:
            os.mknod(name, stat.S_IFREG | 0o644, dir_fd=directory)
        except FileExistsError:
            pass
        destination = resolve.open_strict(directory, name, os.O_NOFOLLOW)
        try:
            kind = os.fstat(destination).st_mode
            if stat.S_ISLNK(kind) or stat.S_ISDIR(kind):
                raise SetupError("a device cannot be mounted on a symlink or a directory", path=path)
            attach.attach(tree, destination)
        finally:
            os.close(destination)
    finally:
        os.close(tree)


def link_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the symlinks of /dev."""
    if not makes_dev(plan):
        return []
    links = [*LINKS, ("/dev/ptmx", "pts/ptmx")]
    if os.path.exists("/proc/kcore"):
        links.append(("/dev/core", "/proc/kcore"))
    return [Piece(f"{path} -> {target}", "", (path, target)) for path, target in links]


def link(setup: "Setup", argument: "tuple[str, str]") -> None:
    """Makes one symlink; an entry of that name stays, but for /dev/ptmx, which has to be the container's own."""
    path, target = argument
    directory, name = _open_parent(setup, path)
    if name == "ptmx":
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass
