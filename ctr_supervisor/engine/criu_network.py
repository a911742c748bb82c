"""Opens a container's network again after a CRIU that died had locked it, in each of the ways that CRIU knows."""

import os

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET

COMMAND_TIMEOUT = 30

# What CRIU's iptables lock adds (criu/netfilter.c): a chain that drops all but what bears its mark.
IPTABLES_SCRIPT = "*filter\n:CRIU - [0:0]\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-X CRIU\nCOMMIT\n"


def unlock(pid: int) -> None:
    """Removes CRIU's rules from the network namespace of a process; does nothing where there are none.

    Args:
        pid: of the container's init process.

    Raises:
        CtrError: the namespace can't be entered.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    status = 1
    try:
        with Fd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            own = os.stat("/proc/self/ns/net")
            if (own.st_dev, own.st_ino) != (os.fstat(namespace.number).st_dev, os.fstat(namespace.number).st_ino):
                # Never in the host's own namespace: the rules there may belong to another CRIU.
                _kernel.setns(namespace.number, CLONE_NEWNET)
                remove_rules()
        status = 0
    finally:
        os._exit(status)


def remove_rules() -> None:
    """Removes them from this process's network namespace, whichever of the tools there are."""
    for tool in ("iptables-restore", "ip6tables-restore"):
        command(tool, "--noflush", given=IPTABLES_SCRIPT)
    for line in command("nft", "list", "tables").splitlines():
        # table inet CRIU-<pid>
        words = line.split()
        if len(words) == 3 and words[2].startswith("CRIU"):
            command("nft", "delete", "table", words[1], words[2])


def command(*argv: str, given: str = "") -> str:
    """Runs a tool and gives its output; what it complains of, and that it is not there, are ignored.

    Args:
        given: its input.
    """
    import subprocess

    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
