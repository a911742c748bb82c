"""The container's view of its cgroups: a mount of type `cgroup`, on v1 (also hybrid) and on v2."""

import errno
import os

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_FDCWD,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
)
from ctr_common.spec.mount_options import MountOptions
from ctr_init import attach, bind, filesystem, guard, resolve
from ctr_init.requests import MountRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.setup import Setup

UNIFIED = "/sys/fs/cgroup"
DEFAULT_FLAGS = MS_NOEXEC | MS_NOSUID | MS_NODEV


def mount_v2(setup: "Setup", request: MountRequest) -> None:
    """Mounts cgroup2, or where that is not allowed shows the container's part of the host's mount.

    In the host's cgroup namespace the options of each mount become those of the whole hierarchy (cgroup-v2.rst,
    "Mounting"): a new one would take `nsdelegate` from the host, and wait for an RCU grace period.
    """
    plan = setup.plan
    destination, _ = resolve.create(setup.root, request.destination)
    try:
        guard.check(setup.root, destination, request.destination, -1)
        mounted = _new_v2(request) if plan.own_cgroup_ns or request.options.data else None
        if mounted is None:
            source = plan.cgroup_paths.get("", "") if plan.own_cgroup_ns else ""
            try:
                mounted = bind.copy_of(source or UNIFIED, recursive=False)
            except FileNotFoundError:
                if not plan.rootless:
                    raise
                # Made outside of the user namespace that we see: hide the host's cgroups instead.
                mounted = filesystem.new_mount("tmpfs", "tmpfs", (), MS_RDONLY)
            bind.set_attributes(request, mounted)
        attach.attach(mounted, destination)
    finally:
        os.close(destination)
    attach.finish(setup, request, mounted)


def _new_v2(request: MountRequest) -> int | None:
    try:
        return filesystem.new_mount(
            "cgroup2", request.source, filesystem.split_data(request.options.data), request.options.flags
        )
    except OSError as error:
        # A user namespace that does not own its cgroup namespace may not mount cgroup2.
        if error.errno not in (errno.EPERM, errno.EBUSY):
            raise
        return None


def mount_v1(setup: "Setup", request: MountRequest) -> None:
    """Mounts a tmpfs with one mount a hierarchy: of the hierarchy, or a bind mount of the container's cgroup in it."""
    plan = setup.plan
    destination, _ = resolve.create(setup.root, request.destination)
    try:
        guard.check(setup.root, destination, request.destination, -1)
        # Not attached until it has its directories and links.
        top = filesystem.new_mount("tmpfs", "tmpfs", _tmpfs_data(setup), DEFAULT_FLAGS)
        attach.attach(top, destination)
    finally:
        os.close(destination)
    for name, path in hierarchies(plan.cgroup_paths):
        os.mkdir(name, 0o755, dir_fd=top)
        below = _kernel.openat2(top, name, os.O_PATH | os.O_NOFOLLOW)
        try:
            mounted = _mount_hierarchy(setup, request, name, path)
            try:
                attach.attach(mounted, below)
                for flags in request.options.propagation:
                    attach.set_propagation(mounted, "", flags)
            finally:
                os.close(mounted)
        finally:
            os.close(below)
        if "," in name:
            for controller in name.split(","):
                os.symlink(name, controller, dir_fd=top)
    attach.finish(setup, request, top)


def _tmpfs_data(setup: "Setup") -> list[str]:
    label = (setup.plan.config.get("linux") or {}).get("mountLabel")
    return ["mode=755", f'context="{label}"'] if label else ["mode=755"]


def _mount_hierarchy(setup: "Setup", request: MountRequest, name: str, path: str) -> int:
    if setup.plan.own_cgroup_ns:
        option = f"name={name}" if name == "systemd" else name
        source = name if name == "systemd" else "cgroup"
        flags = DEFAULT_FLAGS | request.options.flags & MS_RDONLY
        return filesystem.new_mount("cgroup", source, option.split(","), flags)
    tree = bind.copy_of(path, recursive=True)
    options = MountOptions()
    options.flags = MS_BIND | MS_REC | request.options.flags
    try:
        bind.set_attributes(MountRequest(-1, "", "bind", path, options, []), tree)
    except BaseException:
        os.close(tree)
        raise
    return tree


def hierarchies(paths: "dict[str, str]") -> "list[tuple[str, str]]":
    """Name and the container's directory of each hierarchy, in the order of the controllers; co-mounted ones once.

    Args:
        paths: controller to directory.

    Returns:
        (name of the hierarchy's mount point, such as `cpu,cpuacct`; directory), without directories that do not exist.
    """
    found: dict[str, str] = {}
    for path in paths.values():
        top = path
        try:
            while not _kernel.is_mount_root(AT_FDCWD, top):
                top = os.path.dirname(top)
        except FileNotFoundError:
            continue
        if top != "/" and not _is_unified(top):
            found.setdefault(os.path.basename(top), path)
    return list(found.items())


def _is_unified(top: str) -> bool:
    return top == UNIFIED or top == UNIFIED + "/unified"
