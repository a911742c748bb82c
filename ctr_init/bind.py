"""Bind mounts: a detached copy of the source's mount gets all its attributes before anybody can see it."""

import errno
import os
import stat

from ctr_common.errors import SetupError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MOUNT_ATTR_IDMAP,
    MS_NOATIME,
    MS_PRIVATE,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_STRICTATIME,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
)
from ctr_common.spec import mount_options
from ctr_init import attach, guard, requests, resolve
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.requests import MountRequest
    from ctr_init.setup import Setup


def copy_of(path: str, recursive: bool, setting: int = 0, root: str = "") -> int:
    """A detached copy of the mount at a host path, before the host's root is left.

    Args:
        path: on the host; symlinks are followed.
        recursive: with the mounts below.
        setting: MOUNT_ATTR_* to set on it, and on the mounts below.
        root: the directory where absolute paths and symlinks start, for a caller in a chroot.

    Returns:
        its fd.
    """
    depth = AT_RECURSIVE if recursive else 0
    if root:
        with (
            Fd(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top,
            Fd(_kernel.openat2(top.fileno(), path, os.O_PATH, resolve=RESOLVE_IN_ROOT)) as source,
        ):
            tree = _kernel.open_tree(source.fileno(), "", OPEN_TREE_CLONE | AT_EMPTY_PATH | depth)
    else:
        tree = _kernel.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | depth)
    if setting:
        try:
            _kernel.mount_setattr(tree, "", AT_EMPTY_PATH | depth, setting)
        except BaseException:
            os.close(tree)
            raise
    return tree


def early_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: bind sources that have to be opened with the host's credentials."""
    everything = plan.join_flags & CLONE_NEWUSER and not plan.rootless
    return [
        Piece(f"{request.source}{', idmapped' if request.is_idmapped else ''}", request.json_path, request)
        for request in requests.of_plan(plan)
        if request.is_bind and (everything or request.is_idmapped) and not request.shows_an_earlier_mount(plan.rootfs)
    ]


def open_early(setup: "Setup", request: "MountRequest") -> None:
    """Opens one bind source, unless the worker has given up the host's credentials already."""
    if request.options.flags & MS_REMOUNT:
        return
    if setup.plan.join_flags & CLONE_NEWUSER and not setup.staged and not request.is_idmapped:
        return
    setup.sources[request.index] = _open(setup, request)


def _open(setup: "Setup", request: "MountRequest") -> int:
    try:
        tree = copy_of(request.source, bool(request.options.flags & MS_REC), root=setup.host_root)
    except OSError as error:
        # What is mounted below the source is locked to it in a user namespace's mounts (mount_namespaces(7)).
        if error.errno != errno.EINVAL or request.options.flags & MS_REC or setup.host_mounts < 0:
            raise
        tree = _copy_on_the_host(setup, request.source)
    if request.is_idmapped:
        from ctr_init import idmap

        try:
            with idmap.user_namespace(setup, request) as namespace:
                recursive = AT_RECURSIVE if request.options.idmap == "ridmap" else 0
                _kernel.mount_setattr(
                    tree, "", AT_EMPTY_PATH | recursive, MOUNT_ATTR_IDMAP, userns_fd=namespace.fileno()
                )
        except BaseException:
            os.close(tree)
            raise
    return tree


def _copy_on_the_host(setup: "Setup", path: str) -> int:
    """A detached copy of a mount without those below it, made where none of them is locked.

    Raises:
        SetupError: it has flags. They would not be locked either, so that the container's root could take them off.
    """
    with Fd(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as own:
        _kernel.setns(setup.host_mounts, CLONE_NEWNS)
        try:
            tree = copy_of(path, recursive=False, root=setup.host_root)
        finally:
            _kernel.setns(own.fileno(), CLONE_NEWNS)
    try:
        if os.fstatvfs(tree).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC):
            raise SetupError(
                f"the mounts below {path} can only be left out where it is mounted rw, suid, dev and exec",
                errno=errno.EINVAL,
                hint="use rbind",
            )
        # Nothing that happens on it may reach the host.
        _kernel.mount_setattr(tree, "", AT_EMPTY_PATH, propagation=MS_PRIVATE)
    except BaseException:
        os.close(tree)
        raise
    return tree


def mount(setup: "Setup", request: "MountRequest") -> None:
    """Makes a bind mount with its flags, recursive attributes and propagation.

    Raises:
        OSError, SetupError: it could not be made.
    """
    if request.options.flags & MS_REMOUNT:
        change_flags(setup, request)
        return
    tree = setup.sources.pop(request.index, -1)
    if tree < 0:
        tree = _open(setup, request)
    try:
        place(setup, request, tree)
    except BaseException:
        os.close(tree)
        raise
    attach.finish(setup, request, tree)


def place(setup: "Setup", request: "MountRequest", tree: int) -> None:
    """Gives a detached mount the request's attributes and attaches it; a missing destination is made."""
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    destination, _ = resolve.create(setup.root, request.destination, directory)
    try:
        guard.check(setup.root, destination, request.destination, tree)
        if stat.S_ISDIR(os.fstat(destination).st_mode) != directory:
            kinds = ("a directory", "not a directory")
            raise SetupError(
                f"source is {kinds[not directory]} and destination is {kinds[directory]}", errno=errno.ENOTDIR
            )
        set_attributes(request, tree)
        attach.attach(tree, destination)
    finally:
        os.close(destination)


def set_attributes(request: "MountRequest", tree: int) -> None:
    """Applies flags to the mount and recursive attributes to its tree."""
    options = request.options
    access = access_time_mode(tree)
    setting, clearing = mount_options.bind_changes(options.flags, options.cleared, access)
    if setting or clearing:
        try:
            _kernel.mount_setattr(tree, "", AT_EMPTY_PATH, setting, clearing)
        except PermissionError:
            # In a user namespace the flags that the mount's owner set are locked: keep all but what is named.
            named = mount_options.bind_changes(0, options.cleared, access)[1]
            _kernel.mount_setattr(tree, "", AT_EMPTY_PATH, setting, named | (clearing & _enumerated(setting)))
    if options.recursive_set or options.recursive_clear:
        _kernel.mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, options.recursive_set, options.recursive_clear)


def change_flags(setup: "Setup", request: "MountRequest") -> None:
    """`remount` without a bind: changes the flags of what is mounted there already."""
    mounted = resolve.open_path(setup.root, request.destination)
    try:
        setting, clearing = mount_options.bind_changes(
            request.options.flags, request.options.cleared, access_time_mode(mounted)
        )
        _kernel.mount_setattr(mounted, "", AT_EMPTY_PATH, setting, clearing)
    except BaseException:
        os.close(mounted)
        raise
    attach.finish(setup, request, mounted)


def access_time_mode(mount: int) -> int:
    """Of a mount, as MS_NOATIME, MS_RELATIME or MS_STRICTATIME."""
    st_noatime, st_relatime = 0x400, 0x1000  # statfs(2), f_flags
    flags = os.fstatvfs(mount).f_flag
    return MS_NOATIME if flags & st_noatime else MS_RELATIME if flags & st_relatime else MS_STRICTATIME


def _enumerated(setting: int) -> int:
    """The access time field has to be cleared as a whole in order to set another mode."""
    from ctr_common.kernel.constants import MOUNT_ATTR__ATIME

    return MOUNT_ATTR__ATIME if setting & MOUNT_ATTR__ATIME else 0
