"""One end of a SEQPACKET socket that speaks the start-up protocol, with fds and with messages of any size."""

import os
import select
import time

from ctr_common import bootstrap
from ctr_common.errors import CtrError, ProtocolError, from_dict
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# A message that says it is larger is not one of ours; argv and environment together are bounded by 6 MiB (execve(2)).
MESSAGE_MAX = 16 * 1024 * 1024
FDS_MAX = 16

ERROR_FIELDS = (
    (_kernel.ATTR_ERR_KIND, "kind"),
    (_kernel.ATTR_ERR_STEP, "step"),
    (_kernel.ATTR_ERR_SYSCALL, "syscall"),
    (_kernel.ATTR_ERR_PATH, "path"),
    (_kernel.ATTR_ERR_JSON_PATH, "json_path"),
    (_kernel.ATTR_ERR_MESSAGE, "message"),
    (_kernel.ATTR_ERR_HINT, "hint"),
)


class Message:
    """A received message; owns the fds that came with it until they are taken.

    Attributes:
        type: MSG_* number.
        attributes: (ATTR_* number, payload) in the order of the message.
    """

    __slots__ = ("attributes", "fds", "type")

    def __init__(self, type: int, attributes: "list[tuple[int, bytes]]", fds: "list[int]") -> None:
        self.type = type
        self.attributes = attributes
        self.fds = fds

    def get(self, number: int) -> "bytes | None":
        """Payload of the first attribute of that number."""
        for attribute, payload in self.attributes:
            if attribute == number:
                return payload
        return None

    def text(self, number: int) -> "str | None":
        """The attribute as text."""
        payload = self.get(number)
        return None if payload is None else payload.decode("utf-8", "surrogateescape")

    def u32(self, number: int) -> "int | None":
        """The attribute as an unsigned 32-bit number.

        Raises:
            ProtocolError: it has another size.
        """
        payload = self.get(number)
        if payload is None:
            return None
        if len(payload) != 4:
            raise ProtocolError(f"attribute {number} has {len(payload)} bytes, expected 4")
        return int(bootstrap.U32.unpack(payload)[0])

    def take_fd(self, number: int) -> int:
        """The fd that the attribute points to; the caller closes it.

        Raises:
            ProtocolError: no such attribute, or no such fd came along.
        """
        index = self.u32(number)
        if index is None or index >= len(self.fds) or self.fds[index] < 0:
            raise ProtocolError(f"message {name_of(self.type)} came without the fd of attribute {number}")
        taken, self.fds[index] = self.fds[index], -1
        return taken

    def close(self) -> None:
        """Closes the fds that nobody took."""
        fds, self.fds = self.fds, []
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def error(self) -> CtrError:
        """The failure that an ERROR message tells of; an InitError where it names no kind."""
        data: dict[str, object] = {"kind": "InitError"}
        for number, field in ERROR_FIELDS:
            value = self.text(number)
            if value:
                data[field] = value
        data["errno"] = self.u32(_kernel.ATTR_ERR_ERRNO) or 0
        return from_dict(data)


def name_of(message: int) -> str:
    """The protocol's name of a message number."""
    return _kernel.MESSAGE_NAMES.get(message, str(message))


def error_attributes(error: CtrError) -> "list[tuple[int, bytes]]":
    """A failure as the attributes of an ERROR message."""
    data = error.as_dict()
    attributes = [
        (number, bootstrap.text(str(data[field]).replace("\0", "\\0")))
        for number, field in ERROR_FIELDS
        if field in data
    ]
    if error.errno:
        attributes.append((_kernel.ATTR_ERR_ERRNO, bootstrap.u32(error.errno)))
    return attributes


class Channel:
    """Owns one end of the socket.

    Args:
        fd: a connected SEQPACKET socket.
        peer: who is at the other end, for error texts ("container process", "setup worker").
    """

    __slots__ = ("fd", "peer")

    def __init__(self, fd: int, peer: str) -> None:
        self.fd = fd
        self.peer = peer

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; does nothing the second time."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def send(self, message: int, attributes: "bootstrap.Attributes" = (), fds: "Sequence[int]" = ()) -> None:
        """Sends one message; beyond INLINE_MAX bytes it travels in a sealed memfd.

        Raises:
            ProtocolError: the peer is gone.
        """
        data = bootstrap.encode(message, attributes)
        try:
            if len(data) <= _kernel.INLINE_MAX:
                _kernel.sendmsg(self.fd, data, fds)
                return
            memfd = _kernel.memfd_sealed("ctr-message", data)
            try:
                _kernel.sendmsg(self.fd, bootstrap.encode(_kernel.MSG_INDIRECT, ()), (memfd, *fds))
            finally:
                os.close(memfd)
        except OSError as error:
            raise ProtocolError(
                f"sending {name_of(message)} to the {self.peer}", syscall="sendmsg", errno=error.errno or 0
            ) from None

    def receive(self, timeout: "float | None" = None) -> "Message | None":
        """The next message, or None when the peer closed its end.

        Args:
            timeout: seconds to wait at most; None waits as long as the peer lives.

        Raises:
            ProtocolError: malformed, too large, or nothing came in time.
        """
        if timeout is not None:
            wait_readable(self.fd, timeout, self.peer)
        try:
            data, fds, _ = _kernel.recvmsg(self.fd, _kernel.INLINE_MAX, FDS_MAX)
        except ConnectionResetError:
            return None
        except OSError as error:
            raise ProtocolError(f"receiving from the {self.peer}", syscall="recvmsg", errno=error.errno or 0) from None
        if not data:
            return None
        try:
            message, attributes = bootstrap.decode(data)
            if message == _kernel.MSG_INDIRECT:
                if not fds:
                    raise ProtocolError(f"indirect message without its memfd from the {self.peer}")
                memfd = fds.pop(0)
                try:
                    message, attributes = bootstrap.decode(read_memfd(memfd))
                finally:
                    os.close(memfd)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Message(message, attributes, fds)

    def expect(self, *wanted: int, timeout: "float | None" = None) -> Message:
        """The next message, which must be one of the wanted types.

        Raises:
            CtrError: the peer reported a failure; that failure is raised.
            ProtocolError: the peer closed its end or said something else.
        """
        message = self.receive(timeout)
        names = " or ".join(map(name_of, wanted))
        if message is None:
            raise ProtocolError(f"the {self.peer} ended before it sent {names}")
        if message.type in wanted:
            return message
        message.close()
        if message.type == _kernel.MSG_ERROR:
            raise message.error()
        raise ProtocolError(f"the {self.peer} sent {name_of(message.type)} instead of {names}")

    def send_error(self, error: CtrError) -> None:
        """Reports a failure to the peer; a peer that is gone already is not told."""
        try:
            self.send(_kernel.MSG_ERROR, error_attributes(error))
        except ProtocolError:
            pass


def read_memfd(fd: int) -> bytes:
    """The contents of a memfd that came as a message.

    Raises:
        ProtocolError: larger than any message may be.
    """
    size = os.fstat(fd).st_size
    if size > MESSAGE_MAX:
        raise ProtocolError(f"message of {size} bytes, more than {MESSAGE_MAX}")
    data = os.pread(fd, size, 0)
    if len(data) != size:
        raise ProtocolError(f"message memfd gave {len(data)} of {size} bytes")
    return data


def wait_readable(fd: int, timeout: float, peer: str) -> None:
    """Waits until the fd can be read or its peer is gone.

    Raises:
        ProtocolError: neither happened within `timeout` seconds.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while not poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
        if time.monotonic() >= deadline:
            raise ProtocolError(f"no answer from the {peer} within {timeout:g} seconds")
