"""Network interfaces of one network namespace, through pyroute2; used inside of a job only."""

from ctr_common.errors import CtrError, strerror
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENODEV = 19
AF_INET6 = 10
IFF_UP = 0x1  # netdevice(7)
RT_SCOPE_UNIVERSE = 0  # rtnetlink(7)
IFA_F_PERMANENT = 0x80
# What a user says about an address in its flags; the others are what the kernel says about it.
IFA_F_NODAD = 0x02
IFA_F_OF_THE_USER = IFA_F_NODAD | 0x10 | 0x100 | 0x200 | 0x400  # HOMEADDRESS MANAGETEMPADDR NOPREFIXROUTE MCAUTOJOIN


class Links:
    """A netlink socket in one network namespace. It stays there when the process enters another one.

    Args:
        netns: fd of the namespace, which this process enters for good; None for the one that it is in.

    Raises:
        ImportError: there is no pyroute2.
        OSError: the namespace can't be entered.
    """

    def __init__(self, netns: "int | None" = None) -> None:
        from pyroute2.iproute.linux import IPRoute

        if netns is not None:
            _kernel.setns(netns, CLONE_NEWNET)
        # groups=0: not subscribed to news, so there is no queue of them that could overflow.
        try:
            self.netlink: Any = IPRoute(groups=0)
        except TypeError:
            # before pyroute2 0.8, such as that of Debian 12, the socket is bound by a call of its own
            self.netlink = IPRoute()
            self.netlink.bind(groups=0)

    def find(self, name: str) -> "Any | None":
        """The interface of that name or alternative name; None if there is none."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return self.netlink.link("get", ifname=name)[0]
        except NetlinkError as error:
            if error.code == ENODEV:
                return None
            raise

    def indexes(self) -> "set[int]":
        """Indexes of all interfaces."""
        return {link["index"] for link in self.netlink.link("dump")}

    def set(self, index: int, **properties: "Any") -> None:
        """Changes an interface: state="up", master=…, mtu=…, ifname=…, net_ns_fd=….

        Raises:
            CtrError: the kernel refused; names the properties.
        """
        self._ask(f"set {_listing(properties)}", self.netlink.link, "set", index=index, **properties)

    def add(self, **properties: "Any") -> None:
        """Makes an interface: kind="veth", ifname=…, peer={…}."""
        self._ask(f"add {properties.get('ifname')}", self.netlink.link, "add", **properties)

    def delete(self, index: int) -> None:
        """Removes an interface, and its peer with it."""
        self._ask("delete", self.netlink.link, "del", index=index)

    def set_port(self, index: int, **properties: "Any") -> None:
        """Changes a bridge's port: mode=1 for hairpin."""
        self._ask(f"set bridge port {_listing(properties)}", self.netlink.brport, "set", index=index, **properties)

    def add_route(self, **route: "Any") -> None:
        """Adds a route: dst, gateway, oif, family."""
        self._ask(f"add route {_listing(route)}", self.netlink.route, "add", **route)

    def add_address(self, index: int, address: "dict[str, Any]") -> None:
        """Gives an interface an address, as `addresses` returns them."""
        text = f"{address.get('local') or address['address']}/{address['prefixlen']}"
        self._ask(f"add address {text}", self.netlink.addr, "add", index=index, **address)

    def addresses(self, index: int) -> "list[dict[str, Any]]":
        """The addresses that a user gave to an interface: permanent, global scope (RFC 3549, section 2.3.3.2).

        Returns:
            What `add_address` needs of each: family, prefixlen, address; local, broadcast, ifa_flags where they matter.
        """
        found = []
        for message in self.netlink.addr("dump", index=index):
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if message["index"] != index or message["scope"] != RT_SCOPE_UNIVERSE or not flags & IFA_F_PERMANENT:
                continue
            entry = {"family": message["family"], "prefixlen": message["prefixlen"]}
            for key in ("address", "local", "broadcast", "rt_priority"):
                value = message.get_attr(f"IFA_{key.upper()}")
                if value is not None:
                    entry[key] = value
            if flags & IFA_F_OF_THE_USER:
                entry["ifa_flags"] = flags & IFA_F_OF_THE_USER
            found.append(entry)
        return found

    def _ask(self, what: str, request: "Any", *arguments: "Any", **properties: "Any") -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            request(*arguments, **properties)
        except NetlinkError as error:
            text = str(error.args[1]) if len(error.args) > 1 else ""
            told = text if text.lower() not in ("", strerror(error.code)) else ""
            raise CtrError(f"{what} ({told})" if told else what, syscall="netlink", errno=error.code) from None


def _listing(properties: "dict[str, Any]") -> str:
    return " ".join(f"{name}={value}" for name, value in properties.items() if name != "net_ns_fd")
