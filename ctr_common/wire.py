"""Messages between the long-lived programs: msgpack maps on a SEQPACKET socket, with fds and of any size.

One datagram is one message: a map whose `type` is text. The fds that come along are announced by name, in order, in
its `fds`; one that is not announced, or announced and missing, makes the message invalid. A message beyond INLINE_MAX
bytes travels in a sealed memfd: the datagram then is {"type": "indirect"} and the memfd is the first of its fds, the
others keep their order behind it. docs/PROTOCOL.md tells who says what to whom.

Never imported on a start-up path: msgpack alone takes 7 ms there (see ctr_common/bootstrap.py for what is spoken
instead).
"""

from __future__ import annotations

import errno
import fcntl
import os

import msgpack

from ctr_common.channel import read_memfd, wait_readable
from ctr_common.errors import CtrError, ProtocolError, from_dict
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INLINE_MAX = 64 * 1024
MESSAGE_MAX = 16 * 1024 * 1024
# unix(7): SCM_MAX_FD
FDS_MAX = 253

# fcntl(2): F_GET_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
F_GET_SEALS = 1034
SEALS_NEEDED = 0x2 | 0x4 | 0x8

INDIRECT = "indirect"
ERROR = "error"


class Packet:
    """A received message; owns the fds that came with it until they are taken.

    Attributes:
        type: what it says.
        body: the whole map.
    """

    __slots__ = ("_fds", "body", "type")

    def __init__(self, body: dict[str, Any], fds: dict[str, int]) -> None:
        self.type: str = body["type"]
        self.body = body
        self._fds = fds

    def __enter__(self) -> "Packet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, name: str, kind: type[Any], default: Any = None) -> Any:
        """A value of the map.

        Args:
            kind: the type that it must have.
            default: what an absent one is.

        Raises:
            ProtocolError: it has another type.
        """
        value = self.body.get(name)
        if value is None:
            return default
        # bool is an int to Python, not to the protocol
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ProtocolError(f"{name} of {self.type} is {type(value).__name__}, expected {kind.__name__}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty when absent.

        Raises:
            ProtocolError: it is something else.
        """
        values: list[str] = self.get(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise ProtocolError(f"{name} of {self.type} holds something that is not text")
        return values

    @property
    def fd_names(self) -> list[str]:
        """Names of the fds that nobody has taken yet."""
        return list(self._fds)

    def fd(self, name: str) -> int:
        """An announced fd, which stays the packet's.

        Raises:
            ProtocolError: none of that name came along.
        """
        try:
            return self._fds[name]
        except KeyError:
            raise ProtocolError(f"{self.type} came without the fd {name}") from None

    def take_fd(self, name: str) -> int:
        """An announced fd; the caller closes it.

        Raises:
            ProtocolError: none of that name came along.
        """
        fd = self.fd(name)
        del self._fds[name]
        return fd

    def error(self) -> CtrError:
        """The failure that an `error` message tells of."""
        error = self.body.get("error")
        return from_dict(error if isinstance(error, dict) else {})

    def close(self) -> None:
        """Closes the fds that nobody took."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)


def encode(body: dict[str, Any]) -> bytes:
    """A message as bytes; text that is no UTF-8 (arguments, paths) passes unchanged.

    What JSON can say and msgpack can't comes as near as it can: integers beyond 64 bits as floats, surrogates of no
    character as U+FFFD. A configuration may hold them, and must not be the end of who sends it.

    Raises:
        ProtocolError: (EINVAL) it can't be sent at all.
    """
    try:
        try:
            data: bytes = msgpack.packb(body, use_bin_type=True, unicode_errors="surrogateescape")
        except (OverflowError, UnicodeEncodeError):
            data = msgpack.packb(_sendable(body), use_bin_type=True, unicode_errors="surrogateescape")
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ProtocolError(f"{body.get('type')} can't be sent: {error}", errno=errno.EINVAL) from None
    return data


def _sendable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_sendable(name): _sendable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_sendable(one) for one in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return float(value)
    if isinstance(value, str):
        # Those of surrogateescape stand for bytes.
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" else c for c in value)
    return value


def decode(data: bytes) -> dict[str, Any]:
    """The message in bytes.

    Raises:
        ProtocolError: not one map with a textual `type`.
    """
    try:
        body = msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not msgpack: {error or type(error).__name__}") from None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise ProtocolError("not a map with a type")
    return body


class Wire:
    """Owns one end of the socket.

    Args:
        fd: a connected SEQPACKET socket.
        peer: who is at the other end, for error texts ("supervisor", "bridge").
    """

    __slots__ = ("fd", "peer")

    def __init__(self, fd: int, peer: str) -> None:
        self.fd = fd
        self.peer = peer

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket, for select and its like."""
        return self.fd

    def close(self) -> None:
        """Closes the socket; does nothing the second time."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def take(self) -> int:
        """Gives the socket away; the caller closes it."""
        fd, self.fd = self.fd, -1
        return fd

    def send(self, type: str, fds: "dict[str, int] | None" = None, /, **fields: Any) -> None:
        """Sends one message.

        Args:
            type: what it says.
            fds: to pass along, by name; they stay the caller's.
            fields: the rest of the map.

        Raises:
            ProtocolError: the peer is gone, or takes nothing at this moment (a non-blocking socket); EINVAL or
                EMSGSIZE: this can't be sent to anybody.
        """
        body = {"type": type, **fields}
        if fds:
            body["fds"] = list(fds)
        numbers = tuple(fds.values()) if fds else ()
        data = encode(body)
        try:
            if len(data) <= INLINE_MAX:
                _kernel.sendmsg(self.fd, data, numbers)
                return
            if len(data) > MESSAGE_MAX:
                raise ProtocolError(f"{type} of {len(data)} bytes is more than {MESSAGE_MAX}", errno=errno.EMSGSIZE)
            memfd = _kernel.memfd_sealed("ctr-message", data)
            try:
                _kernel.sendmsg(self.fd, encode({"type": INDIRECT}), (memfd, *numbers))
            finally:
                os.close(memfd)
        except OSError as error:
            raise ProtocolError(
                f"sending {type} to the {self.peer}", syscall="sendmsg", errno=error.errno or 0
            ) from None

    def send_error(self, error: CtrError, **fields: Any) -> None:
        """Tells the peer of a failure; one that is gone already is not told.

        Args:
            fields: the rest of the map, such as the `seq` of the request.
        """
        try:
            self.send(ERROR, None, error=error.as_dict(), **fields)
        except ProtocolError:
            pass

    def receive(self, timeout: float | None = None) -> Packet | None:
        """The next message, or None when the peer closed its end.

        Args:
            timeout: seconds to wait at most; None waits as long as the peer lives.

        Raises:
            ProtocolError: malformed, too large, or nothing came in time.
        """
        if timeout is not None:
            wait_readable(self.fd, timeout, self.peer)
        try:
            data, fds, _ = _kernel.recvmsg(self.fd, INLINE_MAX, FDS_MAX)
        except ConnectionResetError:
            return None
        except OSError as error:
            raise ProtocolError(f"receiving from the {self.peer}", syscall="recvmsg", errno=error.errno or 0) from None
        if not data:
            for fd in fds:
                os.close(fd)
            return None
        try:
            return packet(data, fds)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def expect(self, *wanted: str, timeout: float | None = None) -> Packet:
        """The next message, which must be one of the wanted types.

        Raises:
            CtrError: the peer reported a failure; that failure is raised.
            ProtocolError: the peer closed its end or said something else.
        """
        received = self.receive(timeout)
        names = " or ".join(wanted)
        if received is None:
            raise ProtocolError(f"the {self.peer} ended before it sent {names}")
        if received.type in wanted:
            return received
        received.close()
        if received.type == ERROR:
            raise received.error()
        raise ProtocolError(f"the {self.peer} sent {received.type} instead of {names}")


def _check_sealed(fd: int) -> None:
    """Refuses what a read could block on, or what the peer could change while it is read: a FUSE file, a fifo."""
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & SEALS_NEEDED != SEALS_NEEDED:
        raise ProtocolError("the fd of an indirect message is no sealed memfd")


def packet(data: bytes, fds: list[int]) -> Packet:
    """A datagram and its fds as a message; the fds are left in `fds` when this fails, and taken from it otherwise.

    Raises:
        ProtocolError: malformed.
    """
    body = decode(data)
    if body["type"] == INDIRECT:
        if not fds:
            raise ProtocolError("indirect message without its memfd")
        memfd = fds.pop(0)
        try:
            _check_sealed(memfd)
            body = decode(read_memfd(memfd))
        finally:
            os.close(memfd)
    names = body.get("fds", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ProtocolError(f"fds of {body['type']} is not a list of different names")
    if len(names) != len(fds):
        raise ProtocolError(f"{body['type']} announces {len(names)} fds and came with {len(fds)}")
    taken = dict(zip(names, fds, strict=True))
    fds.clear()
    return Packet(body, taken)
