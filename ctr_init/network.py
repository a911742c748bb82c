"""The loopback interface of a new network namespace."""

import fcntl
import struct

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
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
    # a socket of any family will do for these requests, and _socket would cost 0.3 ms
    one, other = map(Fd, _kernel.socketpair())
    with one, other:
        answer = fcntl.ioctl(one.fileno(), SIOCGIFFLAGS, REQUEST.pack(b"lo", 0))
        flags = REQUEST.unpack(answer)[1]
        fcntl.ioctl(one.fileno(), SIOCSIFFLAGS, REQUEST.pack(b"lo", flags | IFF_UP))
