"""User namespaces that say how an idmapped mount translates ids (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

import os

from ctr_common.errors import SetupError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWUSER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import IDMapping
    from ctr_init.requests import MountRequest
    from ctr_init.setup import Setup


def user_namespace(setup: "Setup", request: "MountRequest") -> Fd:
    """The user namespace of a mount: one with the mount's own mappings, else the container's.

    Raises:
        SetupError: there is neither.
        OSError: the maps were refused.
    """
    if request.uid_mappings and request.gid_mappings:
        return _with_mappings(request.uid_mappings, request.gid_mappings)
    if request.uid_mappings or request.gid_mappings:
        raise SetupError("an idmapped mount needs both uidMappings and gidMappings")
    if not setup.plan.join_flags & CLONE_NEWUSER:
        raise SetupError(f"{request.options.idmap} without mappings needs a container with a user namespace")
    return Fd(os.open(f"/proc/{setup.plan.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))


def map_text(mappings: "list[IDMapping]") -> bytes:
    """Mappings as uid_map takes them."""
    return "".join(f"{item['containerID']} {item['hostID']} {item['size']}\n" for item in mappings).encode()


def _with_mappings(uids: "list[IDMapping]", gids: "list[IDMapping]") -> Fd:
    """A user namespace, held by a child until it has its maps and an fd keeps it."""
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold_write)
            _kernel.unshare(CLONE_NEWUSER)
            # Its pid as the host's /proc has it, which is not the one that fork returned in the pid namespace.
            os.write(told_write, os.readlink("/proc/self").encode())
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(told_write)
    os.close(hold_read)
    try:
        name = os.read(told_read, 32).decode()
        if not name:
            raise SetupError("cannot make a user namespace for an idmapped mount")
        for file, mappings in (("uid_map", uids), ("gid_map", gids)):
            with Fd(os.open(f"/proc/{name}/{file}", os.O_WRONLY | os.O_CLOEXEC)) as map_fd:
                os.write(map_fd.fileno(), map_text(mappings))
        return Fd(os.open(f"/proc/{name}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.close(told_read)
        os.close(hold_write)
        os.waitpid(pid, 0)
