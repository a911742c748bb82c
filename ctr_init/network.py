"""The loopback interface of a new network namespace."""

import fcntl
import struct

from ctr_common.spec import namespaces
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup

# netdevice(7)
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
REQUEST = struct.Struct("=16sH14x")


def pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: loopback; a joined network namespace is its owner's to set up."""
    return [Piece("lo")] if namespaces.is_new(plan.config, "network") else []


def bring_up_loopback(_: "Setup", __: object) -> None:
    """Sets the interface up, which also gives it its addresses."""
    import _socket

    with_interfaces = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        answer = fcntl.ioctl(with_interfaces.fileno(), SIOCGIFFLAGS, REQUEST.pack(b"lo", 0))
        flags = REQUEST.unpack(answer)[1]
        fcntl.ioctl(with_interfaces.fileno(), SIOCSIFFLAGS, REQUEST.pack(b"lo", flags | IFF_UP))
    finally:
        with_interfaces.close()
