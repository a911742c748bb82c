"""Host name and domain name."""

from ctr_common.kernel import _kernel
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def hostname_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the host name."""
    name = plan.config.get("hostname")
    return [Piece(name, ".hostname", name)] if name else []


def set_hostname(_: "Setup", name: str) -> None:
    """Sets the host name of the container's UTS namespace."""
    _kernel.sethostname(name)


def domainname_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the NIS domain name."""
    name = plan.config.get("domainname")
    return [Piece(name, ".domainname", name)] if name else []


def set_domainname(_: "Setup", name: str) -> None:
    """Sets the domain name of the container's UTS namespace."""
    _kernel.setdomainname(name)
