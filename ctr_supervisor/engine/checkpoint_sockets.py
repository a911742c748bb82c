"""The sockets of a container's processes, as far as they matter to a checkpoint."""

import os
import struct

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/tcp_states.h; the others have no peer, or none any more
ESTABLISHED_STATES = frozenset((1, 4, 5, 6, 8, 9, 11))
LISTEN = 10

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
AF_NETLINK, AF_UNIX, SOCK_RAW, NETLINK_SOCK_DIAG = 16, 1, 3, 4
SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, NLMSG_ERROR, NLMSG_DONE = 20, 0x301, 2, 3
UDIAG_SHOW_PEER, UDIAG_SHOW_ICONS = 0x4, 0x8
UNIX_DIAG_PEER, UNIX_DIAG_ICONS = 2, 3
ALL_STATES = 0xFFFFFFFF
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBHIIIII")
ANSWER = struct.Struct("=BBBBIII")
ATTRIBUTE = struct.Struct("=HH")
CHUNK = 1024 * 1024


def tcp(pid: int) -> "Iterator[tuple[int, int, int]]":
    """Inode, state and length of the receive queue of each TCP socket in the network namespace of a process.

    The queue of a socket that listens is that of connections which nobody has accepted yet (proc(5), /proc/net/tcp).
    """
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as lines:
                next(lines, None)
                for line in lines:
                    words = line.split()
                    yield int(words[9]), int(words[3], 16), int(words[4].partition(":")[2], 16)
        except OSError:
            continue


def unix_peers(pid: int) -> "dict[int, int]":
    """Peer of each connected unix socket in the network namespace of a process: inode by inode.

    Of a connection that nobody has accepted yet, the socket that listens for it counts as the peer; 0 is one in another
    network namespace.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        # setns(2) for a network namespace is for this thread alone, which has to come back from it: a child has not.
        status = 1
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _kernel.setns(namespace, CLONE_NEWNET)
            text = "".join(f"{inode} {peer}\n" for inode, peer in dump())
            view = memoryview(text.encode())
            while view:
                view = view[os.write(writing, view) :]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    data = b""
    try:
        while chunk := os.read(reading, 65536):
            data += chunk
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    found: dict[int, int] = {}
    for line in data.decode().splitlines():
        inode, peer = map(int, line.split())
        found[inode] = peer or found.get(inode, 0)
    return found


def dump() -> "Iterator[tuple[int, int]]":
    """Inodes of the connected unix sockets in this network namespace, and of their peers (sock_diag(7)); 0: unknown."""
    from _socket import SOCK_CLOEXEC, socket

    diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    try:
        body = REQUEST.pack(AF_UNIX, 0, 0, ALL_STATES, 0, UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS, 0, 0)
        diag.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body)
        while True:
            data = diag.recv(CHUNK)
            position = 0
            while position + HEADER.size <= len(data):
                length, kind, _, _, _ = HEADER.unpack_from(data, position)
                if kind in (NLMSG_DONE, NLMSG_ERROR) or length < HEADER.size:
                    return
                yield from answer(data[position + HEADER.size : position + length])
                position += (length + 3) & ~3
    finally:
        diag.close()


def answer(data: bytes) -> "Iterator[tuple[int, int]]":
    """Inodes in one answer: of a socket and its peer, of those that wait to be accepted and of the one that listens."""
    inode = ANSWER.unpack_from(data)[4]
    position = ANSWER.size
    while position + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, position)
        if length < ATTRIBUTE.size:
            return
        if kind == UNIX_DIAG_PEER:
            yield inode, struct.unpack_from("=I", data, position + ATTRIBUTE.size)[0]
        elif kind == UNIX_DIAG_ICONS:
            waiting = data[position + ATTRIBUTE.size : position + length]
            for (client,) in struct.iter_unpack("=I", waiting):
                yield client, inode
        position += (length + 3) & ~3
