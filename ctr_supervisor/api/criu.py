"""What a checkpoint and a restore are asked for; `criu` does them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What is just switched on, by the names that CRIU, the command line and the protocol have for it.
SWITCHES = (
    "leave_running",
    "tcp_established",
    "tcp_skip_in_flight",
    "tcp_close",
    "link_remap",
    "ext_unix_sk",
    "shell_job",
    "lazy_pages",
    "file_locks",
    "auto_dedup",
)


@dataclass(slots=True)
class CriuOptions:
    """What both have.

    Attributes:
        image_path: folder of the images; made where it is missing.
        work_path: folder of CRIU's log and sockets; "" for one in the state directory.
        criu_path: the binary; "" for the one on PATH (of the supervisor, where that does it).
        tcp_established: allow open TCP connections.
        tcp_close: give open TCP connections up.
        ext_unix_sk: allow unix sockets whose other end is outside.
        shell_job: allow a terminal that comes from outside.
        file_locks: keep file locks.
        lazy_pages: memory is fetched when it is first touched.
        auto_dedup: drop pages that a later image has, too.
        cgroup_mode: what becomes of cgroups: soft, full, strict, ignore; "" for CRIU's own choice.
        network_lock: how connections are held meanwhile: iptables, nftables, skip; "" for CRIU's own choice.
        empty_namespaces: types of namespaces whose contents are left out, such as "network".
    """

    image_path: str
    work_path: str = ""
    criu_path: str = ""
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    cgroup_mode: str = ""
    network_lock: str = ""
    empty_namespaces: Sequence[str] = ()


@dataclass(slots=True)
class CheckpointOptions(CriuOptions):
    """What a checkpoint is asked for.

    Attributes:
        leave_running: the container goes on afterwards.
        tcp_skip_in_flight: leave out TCP connections that are being set up.
        link_remap: keep deleted files that have another name left.
        parent_path: folder of an earlier pre-dump, relative to image_path.
        page_server: (address, port) that the pages are sent to.
        status_fd: gets a zero byte when the pages of a lazy checkpoint can be fetched. In-process only.
        ghost_limit: largest deleted file that is kept, in bytes; 0 for CRIU's own limit.
    """

    leave_running: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    parent_path: str = ""
    page_server: tuple[str, int] | None = None
    status_fd: int = -1
    ghost_limit: int = 0


@dataclass(slots=True)
class RestoreOptions(CriuOptions):
    """What a restore is asked for.

    Attributes:
        lsm_profile: TYPE:NAME in place of the one in the images.
        lsm_mount_context: SELinux context of mounts.
    """

    lsm_profile: str = ""
    lsm_mount_context: str = ""
