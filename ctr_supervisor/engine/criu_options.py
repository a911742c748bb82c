"""What checkpoint and restore ask of CRIU beside the container's own nature: the flags that both have."""

import os

from ctr_common.errors import CtrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Config

CONFIG_ANNOTATION = "org.criu.config"
CONFIG_FILE = "/etc/criu/runc.conf"

WORK_DIRECTORY = "criu.work"
DESCRIPTORS_FILE = "descriptors.json"
# In the state directory from the end of a dump to the end of a restore.
MARKER = "checkpoint"


class CriuOptions:
    """The flags.

    Args:
        image_path: folder of the images.
        work_path: folder of log, statistics and sockets; "" for the one in the state directory.
        flags: names of CRIU's options that are just switched on, such as tcp_established.
        cgroup_mode: soft, full, strict, ignore; "" for CRIU's own choice.
        network_lock: iptables, nftables, skip; "" for CRIU's own choice.
        empty_ns: CLONE_NEW* flags of namespaces whose contents are left out.
    """

    __slots__ = ("cgroup_mode", "empty_ns", "flags", "image_path", "network_lock", "work_path")

    def __init__(
        self,
        image_path: str,
        work_path: str = "",
        flags: "tuple[str, ...]" = (),
        cgroup_mode: str = "",
        network_lock: str = "",
        empty_ns: int = 0,
    ) -> None:
        self.image_path = image_path
        self.work_path = work_path
        self.flags = flags
        self.cgroup_mode = cgroup_mode
        self.network_lock = network_lock
        self.empty_ns = empty_ns

    def wishes(self) -> "dict[str, Any]":
        """As the bridge takes them."""
        wishes: dict[str, Any] = dict.fromkeys(self.flags, True)
        if self.cgroup_mode:
            wishes["cgroup_mode"] = self.cgroup_mode
        if self.network_lock:
            wishes["network_lock"] = self.network_lock
        if self.empty_ns:
            wishes["empty_ns"] = self.empty_ns
        return wishes


class CheckpointOptions(CriuOptions):
    """The flags of a checkpoint.

    Args:
        parent_path: folder with the images of an earlier pre-dump, relative to image_path.
        pre_dump: memory only; the container goes on.
        page_server: address and port that the pages are sent to.
        status_fd: gets a zero byte when the pages of a lazy checkpoint can be fetched; -1 for none.
        ghost_limit: largest deleted file that is kept, in bytes; 0 for CRIU's own limit.
        others: of CriuOptions.
    """

    __slots__ = ("ghost_limit", "page_server", "parent_path", "pre_dump", "status_fd")

    def __init__(
        self,
        image_path: str,
        work_path: str = "",
        flags: "tuple[str, ...]" = (),
        cgroup_mode: str = "",
        network_lock: str = "",
        empty_ns: int = 0,
        parent_path: str = "",
        pre_dump: bool = False,
        page_server: "tuple[str, int] | None" = None,
        status_fd: int = -1,
        ghost_limit: int = 0,
    ) -> None:
        super().__init__(image_path, work_path, flags, cgroup_mode, network_lock, empty_ns)
        self.parent_path = parent_path
        self.pre_dump = pre_dump
        self.page_server = page_server
        self.status_fd = status_fd
        self.ghost_limit = ghost_limit


class RestoreOptions(CriuOptions):
    """The flags of a restore that concern CRIU.

    Args:
        lsm_profile: TYPE:NAME; "" for the one in the images.
        lsm_mount_context: SELinux context of mounts.
        others: of CriuOptions.
    """

    __slots__ = ("lsm_mount_context", "lsm_profile")

    def __init__(
        self,
        image_path: str,
        work_path: str = "",
        flags: "tuple[str, ...]" = (),
        cgroup_mode: str = "",
        network_lock: str = "",
        empty_ns: int = 0,
        lsm_profile: str = "",
        lsm_mount_context: str = "",
    ) -> None:
        super().__init__(image_path, work_path, flags, cgroup_mode, network_lock, empty_ns)
        self.lsm_profile = lsm_profile
        self.lsm_mount_context = lsm_mount_context


def config_file(config: "Config") -> str:
    """The configuration file that CRIU is given beside its own: by annotation, else runc's if it is there.

    Args:
        config: the container's.

    Returns:
        its path, "" for none.
    """
    annotations = config.get("annotations") or {}
    if CONFIG_ANNOTATION in annotations:
        return annotations[CONFIG_ANNOTATION]
    return CONFIG_FILE if os.path.exists(CONFIG_FILE) else ""


def make_folder(path: str, what: str, group: int = 0) -> None:
    """Makes a folder that need not be there yet; the one above it must be.

    Args:
        what: names it in the error.
        group: may pass through a folder that is made here, beside root; 0 for none.

    Raises:
        CtrError: it can't be made.
    """
    try:
        os.mkdir(path, 0o700)
        if group:
            os.chown(path, -1, group)
            os.chmod(path, 0o710)
    except FileExistsError:
        pass
    except OSError as error:
        raise CtrError(f"cannot make the {what}", path=path, errno=error.errno or 0) from None
