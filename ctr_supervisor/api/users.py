"""Users and groups by name, as the container's own /etc/passwd and /etc/group know them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ctr_common.errors import ConfigError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctr_common.spec.types import User

SIZE_LIMIT = 4 << 20
ID_MAX = 2**32 - 2


def parse(text: str, open_root: Callable[[], int]) -> User:
    """`USER[:GROUP]`, each a number or a name, as `user` of a process.

    Args:
        open_root: gives an fd of the container's root, called where a name has to be looked up.

    Returns:
        uid, gid and additionalGids: without a group those of the user, 0 and none for a number that nobody has.

    Raises:
        ConfigError: there is no such user or group.
    """
    name, colon, group = text.partition(":")
    uid = _number(name)
    if uid is not None and (_number(group) is not None or not colon):
        # Nothing to look up; a plain number has the group 0, as it has in config.json.
        return {"uid": uid, "gid": _number(group) or 0}
    with Fd(open_root()) as root:
        users = _table(root, "etc/passwd", 4)
        groups = _table(root, "etc/group", 3)
    entry = next((user for user in users if user[0] == name or (uid is not None and user[2] == str(uid))), None)
    if uid is None and entry is None:
        raise ConfigError(f"no user {name!r} in the container's /etc/passwd", json_path=".process.user")
    found: User = {"uid": uid if uid is not None else _id_of(entry, 2), "gid": _id_of(entry, 3)}
    if colon:
        found["gid"] = _group(group, groups)
    elif entry is not None:
        members = [_id_of(row, 2) for row in groups if len(row) > 3 and entry[0] in row[3].split(",")]
        if members:
            found["additionalGids"] = members
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= ID_MAX else None


def _id_of(row: list[str] | None, index: int) -> int:
    return (_number(row[index]) or 0) if row is not None else 0


def _group(name: str, groups: list[list[str]]) -> int:
    number = _number(name)
    if number is not None:
        return number
    for row in groups:
        if row[0] == name:
            return _id_of(row, 2)
    raise ConfigError(f"no group {name!r} in the container's /etc/group", json_path=".process.user")


def _table(root: Fd, path: str, fields: int) -> list[list[str]]:
    """Rows with at least so many fields. The image wrote the file: no link in it leads out, no fifo is waited for."""
    try:
        flags, resolve = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        with Fd(_kernel.openat2(root.fileno(), path, os.O_PATH, 0, resolve)) as seen:
            if not stat.S_ISREG(os.fstat(seen.fileno()).st_mode):
                return []
            # Through the procfs link it is this very file that is opened.
            with Fd(os.open(f"/proc/self/fd/{seen.fileno()}", flags | os.O_CLOEXEC)) as file:
                data = b""
                while len(data) < SIZE_LIMIT and (chunk := os.read(file.fileno(), 65536)):
                    data += chunk
    except OSError:
        return []
    rows = (line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    return [row for row in rows if len(row) >= fields]
