"""What of a container's mounts comes from outside: CRIU keeps it by name, and gets it back from the bundle.

The names are runc's: the destination of a bind mount, of a cgroup's mount and of a device, and /dev/null for all masked
files, so that each can restore what the other has dumped. A name that is no mount point in the container is fine.
"""

import os
import stat

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import AT_FDCWD, MS_BIND, RESOLVE_IN_ROOT
from ctr_common.spec import mount_options, namespaces
from ctr_supervisor.cgroups import manager as cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr_common.spec.types import Config, Mount

NULL = "/dev/null"
# runtime-spec, config-linux.md, "Default Devices": bind mounts where nodes can't be made.
DEFAULT_DEVICES = (NULL, "/dev/random", "/dev/full", "/dev/tty", "/dev/zero", "/dev/urandom")
CGROUP_MOUNT = "/sys/fs/cgroup"


def clean(path: str) -> str:
    """An absolute path without doubled slashes, `.` and `..`."""
    # normpath leaves two slashes at the beginning alone
    return os.path.normpath("/" + path.lstrip("/"))


def is_bind(mount: "Mount") -> bool:
    """Whether an entry of `.mounts` shows what is at another path."""
    return mount.get("type") == "bind" or bool(mount_options.parse(mount.get("options") or []).flags & MS_BIND)


def externals(config: "Config", bundle: str, cgroup_paths: "dict[str, str]") -> "Iterator[tuple[str, str]]":
    """Mounts from outside that the configuration asks for: name in the images, source on this host.

    Args:
        bundle: that relative sources are relative to.
        cgroup_paths: the container's cgroups by controller.
    """
    for mount in config.get("mounts") or ():
        destination = clean(mount["destination"])
        if is_bind(mount):
            yield destination, os.path.join(bundle, mount.get("source") or "")
        elif mount.get("type") == "cgroup":
            yield from cgroup_mounts(destination, config, cgroup_paths)
    linux = config.get("linux") or {}
    for path in (*DEFAULT_DEVICES, *(device["path"] for device in linux.get("devices") or ())):
        yield path, path


def cgroup_mounts(destination: str, config: "Config", paths: "dict[str, str]") -> "Iterator[tuple[str, str]]":
    """The mounts of the container's cgroups: one of v2, or one below a tmpfs for each hierarchy of v1."""
    if cgroups.hierarchies().mode == "unified":
        own = paths.get("", "") if namespaces.has(config, "cgroup") else ""
        yield destination, own or CGROUP_MOUNT
        return
    done = set()
    for path in paths.values():
        top = path
        while not is_mount_root(top):
            top = os.path.dirname(top)
        name = os.path.basename(top)
        if top not in ("/", CGROUP_MOUNT, f"{CGROUP_MOUNT}/unified") and name not in done:
            done.add(name)
            yield f"{destination}/{name}", path


def is_mount_root(path: str) -> bool:
    """Whether a path is the root of a mount; not while it is not there, as some cgroups until a process enters them."""
    try:
        return _kernel.is_mount_root(AT_FDCWD, path)
    except FileNotFoundError:
        return False


def to_dump(config: "Config", bundle: str, cgroup_paths: "dict[str, str]", pid: int) -> "list[list[str]]":
    """Mounts from outside as a dump takes them: mount point in the container, name.

    A destination may have led through links of the image, and CRIU knows the place where the mount is.

    Args:
        pid: of the container's init process.
    """
    points = mount_points(pid)
    found: dict[str, str] = {}
    with open_root(pid) as root:
        for name, _ in externals(config, bundle, cgroup_paths):
            found.setdefault(place(root, name, points), name)
        for path in (config.get("linux") or {}).get("maskedPaths") or ():
            try:
                with Fd(_kernel.openat2(root.fileno(), path, os.O_PATH, 0, RESOLVE_IN_ROOT)) as masked:
                    if not stat.S_ISDIR(os.fstat(masked.fileno()).st_mode):
                        found.setdefault(place(root, path, points), NULL)
            except OSError:
                continue
    return [[point, name] for point, name in found.items()]


def to_restore(config: "Config", bundle: str, cgroup_paths: "dict[str, str]") -> "list[list[str]]":
    """Mounts from outside as a restore takes them: name, source on this host."""
    found = dict(externals(config, bundle, cgroup_paths))
    if (config.get("linux") or {}).get("maskedPaths"):
        found[NULL] = NULL
    return [[name, source] for name, source in found.items()]


def open_root(pid: int) -> Fd:
    """The root directory of a process.

    Raises:
        CtrError: it is gone.
    """
    try:
        return Fd(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise CtrError.from_os_error(error, step="looking into the container") from None


def mount_points(pid: int) -> "dict[int, str]":
    """Mount points of a process's mount namespace by mount id (proc(5), /proc/pid/mountinfo)."""
    found = {}
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ", 5)
            found[int(words[0])] = unescape(words[4])
    return found


def unescape(text: str) -> str:
    r"""A path as it is, of which mountinfo has blanks and backslashes as \ooo."""
    first, *others = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in others)


def place(root: Fd, path: str, points: "dict[int, str]") -> str:
    """Where the mount that covers a path in the container is; the path itself if it can't be found."""
    try:
        with Fd(_kernel.openat2(root.fileno(), path, os.O_PATH, 0, RESOLVE_IN_ROOT)) as opened:
            if _kernel.is_mount_root(opened.fileno(), ""):
                return points.get(mount_id("self", opened.fileno()), path)
    except OSError:
        pass
    return path


def mount_id(pid: "int | str", fd: "int | str") -> int:
    """Id of the mount that an open file is on (proc(5), /proc/pid/fdinfo); -1 where the kernel does not tell.

    Raises:
        OSError: the process or the fd is gone.
    """
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key == "mnt_id":
                return int(value)
    return -1


def make_mount_points(config: "Config", rootfs: str, bundle: str) -> None:
    """Makes the directories and files that mounts of the configuration cover, as far as they are in the root itself.

    A root file system that no container ran from yet has none of them, and CRIU makes none.

    Raises:
        CtrError: one can't be made.
    """
    covered: list[str] = []
    with Fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        for mount in config.get("mounts") or ():
            destination = clean(mount["destination"])[1:]
            inside = any(destination.startswith(above + "/") for above in covered)
            covered.append(destination)
            if inside or not destination:
                continue
            source = os.path.join(bundle, mount.get("source") or "")
            is_file = is_bind(mount) and not os.path.isdir(source)
            try:
                make_entry(root, destination, is_file)
            except OSError as error:
                raise CtrError.from_os_error(error, step="making a mount point", path=f"/{destination}") from None


def make_entry(root: Fd, path: str, is_file: bool) -> None:
    """Makes a directory, or an empty file, and the directories above it, without leaving the root."""
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        below = "/".join(parts[:end])
        try:
            os.close(_kernel.openat2(root.fileno(), below, os.O_PATH, 0, RESOLVE_IN_ROOT))
            continue
        except FileNotFoundError:
            pass
        above = "/".join(parts[: end - 1]) or "."
        with Fd(_kernel.openat2(root.fileno(), above, os.O_PATH | os.O_DIRECTORY, 0, RESOLVE_IN_ROOT)) as parent:
            if is_file and end == len(parts):
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(parts[-1], flags, 0o755, dir_fd=parent.fileno()))
            else:
                os.mkdir(parts[end - 1], 0o755, dir_fd=parent.fileno())
