"""What `checkpoint` and `restore` have in common: flags, what they mean for CRIU, progress and figures."""

import os
import time

from ctr_common.errors import CtrError, UsageError
from ctr_common.log import STDERR, encode, quote, write_all
from ctr_supervisor.cli import output
from ctr_supervisor.cli.parser import BOOL, STRINGS, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ctr_supervisor.cli.parser import Arguments

WORK_PATH = Flag("work-path", "folder for CRIU's log, statistics and sockets (default: in the state directory)")
TCP_ESTABLISHED = Flag("tcp-established", "keep established TCP connections", BOOL)
TCP_CLOSE = Flag("tcp-close", "give established TCP connections up", BOOL)
EXT_UNIX_SK = Flag("ext-unix-sk", "allow unix sockets that are connected to outside of the container", BOOL)
SHELL_JOB = Flag("shell-job", "allow a terminal from outside of the container", BOOL)
FILE_LOCKS = Flag("file-locks", "keep file locks", BOOL)
CGROUPS_MODE = Flag("manage-cgroups-mode", "what is kept of cgroups: 'soft', 'full', 'strict' or 'ignore'")
EMPTY_NS = Flag("empty-ns", "make this namespace, but leave out what is in it: 'network'", STRINGS)
AUTO_DEDUP = Flag("auto-dedup", "drop pages from images of memory once they are not needed any more", BOOL)
NETWORK_LOCK = Flag(
    "network-lock", "how the network is blocked meanwhile: 'iptables', 'nftables' or 'skip' (CRIU 3.17)"
)
FORMAT = Flag("format", "of the figures in the end: 'text', on a terminal only, or 'json'", default="text")

TEXT, JSON = "text", "json"
DEFAULT_IMAGE_PATH = "checkpoint"

CGROUPS_MODES = ("soft", "full", "strict", "ignore")
NETWORK_LOCKS = ("iptables", "nftables", "skip")
# namespaces(7), CLONE_NEWNET: the only one whose contents CRIU can leave out
EMPTY_NAMESPACES = {"network": 0x40000000}

CLEAR_LINE = "\r\033[K"
# seconds between two changes of the line that shows progress
PROGRESS_INTERVAL = 0.1


def switched_on(arguments: "Arguments", *flags: Flag) -> "tuple[str, ...]":
    """CRIU's names of those of the flags that were given."""
    return tuple(flag.name.replace("-", "_") for flag in flags if arguments.boolean(flag.name))


def image_path(arguments: "Arguments") -> str:
    """--image-path, absolute, before the working directory changes."""
    return os.path.abspath(arguments.string("image-path") or DEFAULT_IMAGE_PATH)


def work_path(arguments: "Arguments") -> str:
    """--work-path, absolute; "" where it was not given."""
    given = arguments.string("work-path")
    return os.path.abspath(given) if given else ""


def cgroups_mode(arguments: "Arguments") -> str:
    """--manage-cgroups-mode.

    Raises:
        UsageError: there is no such mode.
    """
    mode = arguments.string("manage-cgroups-mode")
    if mode and mode not in CGROUPS_MODES:
        raise UsageError("Invalid manage cgroups mode", hint=f"--manage-cgroups-mode takes {_listed(CGROUPS_MODES)}")
    return mode


def network_lock(arguments: "Arguments") -> str:
    """--network-lock.

    Raises:
        UsageError: there is no such way.
    """
    way = arguments.string("network-lock")
    if way and way not in NETWORK_LOCKS:
        raise UsageError(f"invalid --network-lock {quote(way)}: expected {_listed(NETWORK_LOCKS)}")
    return way


def empty_namespaces(arguments: "Arguments") -> int:
    """--empty-ns as CLONE_NEW* flags.

    Raises:
        UsageError: the contents of that namespace can't be left out.
    """
    flags = 0
    for name in arguments.strings("empty-ns"):
        if name not in EMPTY_NAMESPACES:
            raise UsageError(f"namespace {quote(name)} is not supported")
        flags |= EMPTY_NAMESPACES[name]
    return flags


def wants_json(arguments: "Arguments") -> bool:
    """Whether --format asks for JSON.

    Raises:
        UsageError: it asks for something that there is not.
    """
    form = arguments.string("format")
    if form not in (TEXT, JSON):
        raise UsageError(f"invalid format option: {form}")
    return form == JSON


def _listed(names: "tuple[str, ...]") -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


class Progress:
    """One line on the user's terminal that tells how far it is.

    Args:
        verb: what is being done, for the line.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.shown = ""
        self.last = 0.0

    def __call__(self, phase: str, size: int) -> None:
        """Shows a phase and how many bytes there are."""
        now = time.monotonic()
        if phase == self.shown and now - self.last < PROGRESS_INTERVAL:
            return
        self.shown, self.last = phase, now
        written = f", {human_size(size)}" if size else ""
        self._write(f"{CLEAR_LINE}{self.verb}: {phase}{written}")

    def clear(self) -> None:
        """Takes the line away."""
        if self.shown:
            self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        try:
            write_all(STDERR, encode(text))
        except OSError:
            pass


def progress(verb: str) -> "Progress | None":
    """Who shows progress; None where nobody looks."""
    return Progress(verb) if os.isatty(STDERR) else None


def human_size(size: float) -> str:
    """A number of bytes as a person reads it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def show(result: "dict[str, Any]", *, as_json: bool, describe: "Callable[[dict[str, Any]], str]") -> None:
    """Prints the figures: as JSON on standard output, or as a line on the user's terminal.

    Args:
        result: what the bridge said.
        describe: makes the line of it.
    """
    if as_json:
        output.write_json(result, "  ")
    elif os.isatty(STDERR):
        try:
            write_all(STDERR, encode(describe(result) + "\n"))
        except OSError as error:
            raise CtrError("write /dev/stderr", errno=error.errno or 0) from None
