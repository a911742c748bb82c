"""What the command line of `ctr-supervisor` says."""

import argparse
import grp
import os
import select
import sys
from collections.abc import Sequence

from ctr_common.errors import CtrError
from ctr_common.version import VERSION

STDERR = 2


class Options(argparse.Namespace):
    """The flags.

    Attributes:
        root: state root.
        socket: path of the socket for clients.
        group: gid whose members may connect too, or None.
        systemd_cgroup: let systemd make cgroups of containers of its own.
        upgrade: ask the running supervisor to go on as another program.
        check_upgrade: version of the state that would be taken over, or None.
    """

    root: str
    socket: str
    group: int | None
    systemd_cgroup: bool
    upgrade: bool
    check_upgrade: str | None


def parse(arguments: Sequence[str]) -> Options:
    """Reads the command line; ends the program for --help and mistakes."""
    parser = argparse.ArgumentParser(
        prog="ctr-supervisor", description="The service that owns containers, and makes their starts fast."
    )
    parser.add_argument("--root", default=default_root(), help="directory with the containers' state (%(default)s)")
    parser.add_argument("--socket", help="socket for clients (supervisor.sock in the directory of the state)")
    parser.add_argument("--group", type=gid_of, help="name or number of a group whose members may connect too")
    parser.add_argument("--systemd-cgroup", action="store_true", help="let systemd make the containers' cgroups")
    parser.add_argument("--upgrade", action="store_true", help="have the running supervisor go on as this program")
    # What a running supervisor asks the program that it is to go on as.
    parser.add_argument("--check-upgrade", metavar="VERSION", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"ctr-supervisor {VERSION}")
    given = parser.parse_args(arguments, Options())
    given.root = os.path.abspath(given.root)
    given.socket = os.path.abspath(given.socket or default_socket())
    return given


def default_root() -> str:
    """Where `ctrun` of this user has its containers."""
    if os.geteuid() == 0:
        return "/run/ctrun"
    return os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}") + "/ctrun"


def default_socket() -> str:
    """Where `ctrun` of this user looks for its supervisor."""
    return f"{default_root()}/supervisor.sock"


def gid_of(text: str) -> int:
    """A group's number.

    Raises:
        argparse.ArgumentTypeError: there is none of that name.
    """
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group {text}") from None


def complain(error: CtrError) -> None:
    """Tells of a failure on stderr."""
    hint = f" ({error.hint})" if error.hint else ""
    print(f"ctr-supervisor: {error}{hint}", file=sys.stderr)


def log(line: str) -> None:
    """A line on stderr, which a service manager keeps; dropped when nobody reads there, since nothing may wait."""
    data = f"ctr-supervisor: {line}\n".encode("utf-8", "surrogateescape")
    poll = select.poll()
    try:
        poll.register(STDERR, select.POLLOUT)
        # So much has room in a pipe that says that it has some (pipe(7)); more would be waited for.
        while data and any(events & select.POLLOUT for _, events in poll.poll(0)):
            data = data[os.write(STDERR, data[: select.PIPE_BUF]) :]
    except OSError:
        # ignoring: there is no other place to tell of it
        pass
