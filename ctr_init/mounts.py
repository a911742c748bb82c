"""The entries of `.mounts`, in their order."""

import errno
import os
import stat

from ctr_common.errors import CtrError, SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    MOUNT_ATTR_RDONLY,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)
from ctr_common.spec import mount_options
from ctr_init import attach, bind, cgroup_mounts, filesystem, guard, requests, resolve
from ctr_init.requests import MountRequest
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup

# These ignore or refuse the label: procfs and sysfs have their own, a bind mount has its source's.
WITHOUT_LABEL = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


def pieces(plan: "SetupPlan") -> list[Piece]:
    """Step: the mounts."""
    return [Piece(request.detail(), request.json_path, request) for request in requests.of_plan(plan)]


def mount(setup: "Setup", request: MountRequest) -> None:
    """Makes one mount.

    Raises:
        SetupError: names type, source, destination, flags and data.
    """
    try:
        if request.is_bind:
            bind.mount(setup, request)
        elif request.type == "cgroup" and setup.plan.cgroup_mode == "unified":
            cgroup_mounts.mount_v2(setup, request)
        elif request.type == "cgroup":
            cgroup_mounts.mount_v1(setup, request)
        elif request.options.flags & MS_REMOUNT:
            bind.change_flags(setup, request)
        else:
            mount_filesystem(setup, request)
    except OSError as error:
        raise _failure(request, error) from None
    except CtrError as error:
        error.json_path = error.json_path or request.json_path
        error.message = f'error mounting "{request.source}" to rootfs at "{request.destination}": {error.message}'
        raise


def _failure(request: MountRequest, error: OSError) -> SetupError:
    what = f'error mounting "{request.source}" to rootfs at "{request.destination}": '
    made = resolve.making_failed(error)
    if made:
        what += made
    else:
        what += (
            f"mount src={request.source}, dst={request.destination}, type={request.type or 'none'}, "
            f"flags={hex(request.options.flags)}"
        )
        if request.options.data:
            what += f", data={','.join(request.options.data)}"
        # What the filesystem says about an option stands behind the errno's text.
        what += (error.strerror or "").removeprefix(os.strerror(error.errno or 0))
    return SetupError(what, syscall=getattr(error, "syscall", ""), errno=error.errno or 0, json_path=request.json_path)


def mount_filesystem(setup: "Setup", request: MountRequest) -> None:
    """Mounts a filesystem of the request's type."""
    path = request.destination
    if request.type in ("proc", "sysfs"):
        destination, made = guard.check_ordinary_directory(setup.root, path, request.type)
    else:
        destination, made = resolve.create(setup.root, path)
    try:
        if request.type != "proc":
            guard.check(setup.root, destination, path, -1)
        flags = request.options.flags & ~MS_REC
        # A tmpfs still gets its contents, and /dev its nodes: these become read-only at the end.
        late = flags & MS_RDONLY and (request.type == "tmpfs" or path == "/dev")
        if late:
            flags &= ~MS_RDONLY
        data = filesystem.split_data(request.options.data)
        if request.type == "tmpfs" and not made and not any(option.startswith("mode=") for option in data):
            # A tmpfs takes the place of a directory with that directory's mode.
            data.insert(0, f"mode={stat.S_IMODE(os.fstat(destination).st_mode):04o}")
        label = (setup.plan.config.get("linux") or {}).get("mountLabel")
        if label and request.type not in WITHOUT_LABEL:
            data.append(f'context="{label}"')
        if filesystem.needs_old_call(data, flags):
            filesystem.mount_by_old_call(destination, request.type, request.source, data, flags)
            mounted = resolve.open_path(setup.root, path)
        else:
            mounted = _new_mount(setup, request, data, flags)
            if request.options.tmpcopyup and not made:
                from ctr_init import tmpcopyup

                tmpcopyup.copy(destination, mounted)
            if label and request.type == "mqueue":
                _set_label(mounted, label)
            attach.attach(mounted, destination)
    finally:
        os.close(destination)
    attach.finish(setup, request, mounted, late=bool(late))


def _new_mount(setup: "Setup", request: MountRequest, data: list[str], flags: int) -> int:
    try:
        return filesystem.new_mount(request.type, request.source, data, flags, setup.pid_namespace)
    except OSError as error:
        if request.type != "sysfs" or error.errno != errno.EPERM or not _may_not_mount_sysfs(setup.plan):
            raise
    # sysfs shows the network namespace, and only its owner may mount it; the host's shows the same.
    return bind.copy_of("/sys", recursive=True, setting=mount_options.attributes(flags))


def _may_not_mount_sysfs(plan: "SetupPlan") -> bool:
    return not plan.join_flags & CLONE_NEWNET or bool(plan.join_flags & CLONE_NEWUSER) or plan.rootless


def _set_label(mounted: int, label: str) -> None:
    fd = _kernel.openat2(mounted, ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.setxattr(fd, "security.selinux", os.fsencode(label))
    finally:
        os.close(fd)


def read_only_pieces(plan: "SetupPlan") -> list[Piece]:
    """Step: what had to stay writable for a while."""
    return [
        Piece(request.destination, request.json_path)
        for request in requests.of_plan(plan)
        if request.options.flags & MS_RDONLY
        and not request.is_bind
        and (request.type == "tmpfs" or request.destination == "/dev")
    ][:1]


def make_read_only(setup: "Setup", _: object) -> None:
    """Makes the mounts read-only that were filled until now."""
    for mounted in setup.read_only_later:
        _kernel.mount_setattr(mounted, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)
