"""Names of sysctls, and which of them a container may have."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Those of kernel.* that belong to the IPC namespace (ipc/ipc_sysctl.c); fs.mqueue.* does too.
IPC = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)


def dotted(name: str) -> str:
    """A sysctl's name with dots between its parts, which is the form that rules are written in.

    As in sysctl(8), the separator that comes first is the separator, and the other one is part of a name:
    `net/ipv4/conf/eth0.100/mtu` is `net.ipv4.conf.eth0/100.mtu`.
    """
    dot, slash = name.find("."), name.find("/")
    if slash < 0 or 0 <= dot < slash:
        return name
    return name.replace("/", "\0").replace(".", "/").replace("\0", ".")


def path(name: str) -> str:
    """The path of a sysctl below /proc/sys.

    Raises:
        ValueError: the name has an empty part or one that leads elsewhere (`..`).
    """
    result = dotted(name).replace(".", "\0").replace("/", ".").replace("\0", "/")
    if any(part in ("", ".", "..") for part in result.split("/")):
        raise ValueError(f"{name!r} is not the name of a sysctl")
    return result


def refusal(
    name: str,
    has: "Callable[[str], bool]",
    host_network: "Callable[[], bool]",
    domainname: str,
) -> str:
    """Why a container may not have a sysctl: one that no namespace of its own holds would change the host.

    Args:
        name: as the configuration has it.
        has: tells whether the container has a namespace of a type.
        host_network: tells whether its network namespace is the host's, after all.
        domainname: as in the configuration.

    Returns:
        the reason in runc's words; "" if it may.
    """
    wanted = dotted(name)
    if wanted in IPC or wanted.startswith("fs.mqueue."):
        return "" if has("ipc") else f'sysctl "{name}" is not allowed in the hosts ipc namespace'
    if wanted.startswith("net."):
        if has("network") and not host_network():
            return ""
        return f'sysctl "{name}" not allowed in host network namespace'
    if has("uts"):
        if wanted == "kernel.domainname" and not domainname:
            return ""
        if wanted in ("kernel.hostname", "kernel.domainname"):
            return f'sysctl "{name}" is not allowed as it conflicts with the OCI "{wanted[7:]}" field'
    return f'sysctl "{name}" is not in a separate kernel namespace'
