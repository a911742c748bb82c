"""The figures that CRIU leaves behind: stats-dump and stats-restore in the work directory."""

import os
import struct

from ctr_common.fd import Fd
from ctr_criu_bridge import rpc

# An image begins with two magic numbers (criu/include/magic.h), then come length and message.
HEADER = struct.Struct("<III")
SERVICE_MAGIC = 0x55105940
STATS_MAGIC = 0x57093306
SIZE_MAX = 64 * 1024

# Times are in microseconds there and here; pages are of 4096 bytes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    Figures = dict[str, int]


def read(work_dir: int, name: str) -> "Figures":
    """The figures of a finished dump or restore; empty where CRIU wrote none.

    Args:
        work_dir: fd of the work directory.
        name: "stats-dump" or "stats-restore".
    """
    try:
        with Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=work_dir)) as file:
            data = os.read(file.fileno(), SIZE_MAX)
        return parse(data)
    except (OSError, rpc.DecodeError, struct.error):
        return {}


def parse(data: bytes) -> "Figures":
    """The figures in the bytes of such a file.

    Raises:
        struct.error, rpc.DecodeError: it is no such file.
    """
    service, magic, size = HEADER.unpack_from(data)
    if (service, magic) != (SERVICE_MAGIC, STATS_MAGIC):
        raise struct.error("no statistics of criu")
    entry = rpc.decode("stats_entry", data[HEADER.size : HEADER.size + size])
    return dict(entry.get("dump") or entry.get("restore") or {})
