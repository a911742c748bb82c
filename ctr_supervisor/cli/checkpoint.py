"""`ctrun checkpoint`."""

import os

from ctr_common.errors import CtrError, UsageError
from ctr_supervisor.cli import criu_flags, output
from ctr_supervisor.cli.criu_flags import CGROUPS_MODE, EMPTY_NS, FORMAT, NETWORK_LOCK, WORK_PATH
from ctr_supervisor.cli.parser import BOOL, INT, INVALID_SYNTAX, Flag
from ctr_supervisor.cli.quantities import parse_size
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings
    from ctr_supervisor.engine.criu_options import CheckpointOptions

LEAVE_RUNNING = Flag("leave-running", "let the container go on afterwards", BOOL)
LAZY_PAGES = Flag("lazy-pages", "keep the memory, and serve it to a restore page by page", BOOL)
LINK_REMAP = Flag("link-remap", "keep deleted files that have another name left", BOOL)
SKIP_IN_FLIGHT = Flag("tcp-skip-in-flight", "drop TCP connections that nobody has accepted yet", BOOL)
# In the order of CRIU's own names, which theirs are.
SWITCHES = (
    LEAVE_RUNNING,
    criu_flags.TCP_ESTABLISHED,
    SKIP_IN_FLIGHT,
    criu_flags.TCP_CLOSE,
    LINK_REMAP,
    criu_flags.EXT_UNIX_SK,
    criu_flags.SHELL_JOB,
    LAZY_PAGES,
    criu_flags.FILE_LOCKS,
    criu_flags.AUTO_DEDUP,
)

VERB = Verb(
    "checkpoint",
    "save a running container to a folder of images",
    arguments="<container-id>",
    description="""\
Saves memory, files, sockets and the rest of a container's processes by CRIU;
"ctrun restore" makes a container of them again. The container ends, unless
"--leave-running" or "--pre-dump" is given.

When it can't be saved it goes on as before. "--check" tells beforehand what
would stand in the way, and touches nothing.""",
    flags=(
        Flag("image-path", "folder for the images; without it, ./checkpoint"),
        WORK_PATH,
        Flag("parent-path", "folder with the images of an earlier --pre-dump, relative to --image-path"),
        *SWITCHES,
        Flag("status-fd", "fd that gets a zero byte once --lazy-pages can serve", INT, default=-1),
        Flag("page-server", "ADDRESS:PORT of the page server that memory is sent to, or that --lazy-pages serves at"),
        Flag("pre-dump", "save memory only, and let the container go on", BOOL),
        CGROUPS_MODE,
        EMPTY_NS,
        NETWORK_LOCK,
        Flag("ghost-limit", "largest deleted file to save, in bytes or with K, M or G (default: 1M)"),
        Flag("check", "only tell what would stand in the way", BOOL),
        FORMAT,
    ),
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Saves the container, or tells why it could not be saved."""
    from ctr_supervisor.engine import container

    as_json = criu_flags.wants_json(arguments)
    runtime = surroundings.runtime()
    container_id = arguments.rest[0]
    # The container first: whoever mistyped its name shall hear that, and no folder is made.
    container.load(runtime, container_id)
    asked = options(arguments)
    if arguments.boolean("check"):
        return check(surroundings, container_id, asked, as_json=as_json)

    from ctr_supervisor.engine import checkpoint, criu

    progress = criu_flags.progress("checkpoint")
    try:
        result = checkpoint.checkpoint(runtime, container_id, asked, progress)
    except CtrError as error:
        if progress is not None:
            progress.clear()
        criu.tell_details(runtime, error)
        raise
    if progress is not None:
        progress.clear()
    criu_flags.show(result, as_json=as_json, describe=describe)
    return 0


def options(arguments: "Arguments") -> "CheckpointOptions":
    """What the flags ask for.

    Raises:
        UsageError: something that is not possible.
    """
    from ctr_supervisor.engine.criu_options import CheckpointOptions

    image_path = criu_flags.image_path(arguments)
    return CheckpointOptions(
        image_path=image_path,
        work_path=criu_flags.work_path(arguments),
        flags=criu_flags.switched_on(arguments, *SWITCHES),
        cgroup_mode=criu_flags.cgroups_mode(arguments),
        network_lock=criu_flags.network_lock(arguments),
        empty_ns=criu_flags.empty_namespaces(arguments),
        parent_path=parent_path(arguments, image_path),
        pre_dump=arguments.boolean("pre-dump"),
        page_server=page_server(arguments),
        status_fd=status_fd(arguments),
        ghost_limit=ghost_limit(arguments),
    )


def parent_path(arguments: "Arguments", image_path: str) -> str:
    """--parent-path, which must be there.

    Raises:
        UsageError: it is absolute, or not there.
    """
    path = arguments.string("parent-path")
    if not path:
        return ""
    if path.startswith("/"):
        raise UsageError("--parent-path must be relative", hint="it is relative to --image-path")
    parent = os.path.normpath(os.path.join(image_path, path))
    try:
        os.stat(parent)
    except OSError as error:
        raise CtrError(f"invalid --parent-path: stat {parent}", errno=error.errno or 0) from None
    return path


def page_server(arguments: "Arguments") -> "tuple[str, int] | None":
    """--page-server taken apart.

    Raises:
        UsageError: it is not ADDRESS:PORT.
    """
    text = arguments.string("page-server")
    if not text:
        return None
    address, _, port = text.rpartition(":")
    if not address or not port:
        raise UsageError("Use --page-server ADDRESS:PORT to specify page server")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError("Invalid port number")
    return address.removeprefix("[").removesuffix("]"), int(port)


def status_fd(arguments: "Arguments") -> int:
    """--status-fd, which must be open where the pages are served lazily; -1 without it.

    Raises:
        UsageError: it is not open.
    """
    fd = arguments.integer("status-fd")
    if fd < 0 or not arguments.boolean("lazy-pages"):
        return -1
    try:
        os.fstat(fd)
    except OSError:
        raise UsageError(f"invalid --status-fd argument {fd}: bad file descriptor") from None
    # Nobody but us is to keep it open: its reader waits for the byte, or for the end.
    os.set_inheritable(fd, False)
    return fd


def ghost_limit(arguments: "Arguments") -> int:
    """--ghost-limit in bytes; 0 without it.

    Raises:
        UsageError: it is no size that CRIU can be told.
    """
    text = arguments.string("ghost-limit")
    if not text:
        return 0
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"invalid --ghost-limit {text}: {error or INVALID_SYNTAX}") from None
    if not 0 < size < 2**32:
        raise UsageError(f"invalid --ghost-limit {text}: expected 1 to {2**32 - 1} bytes")
    return size


def describe(result: "dict[str, Any]") -> str:
    """The figures in one line."""
    stats = result.get("stats") or {}
    frozen = stats.get("frozen_time", 0) / 1000
    pages = stats.get("pages_written", 0)
    return f"checkpoint: {criu_flags.human_size(result.get('bytes', 0))}, {pages} pages, frozen for {frozen:.0f} ms"


def check(surroundings: "Surroundings", container_id: str, asked: "CheckpointOptions", *, as_json: bool) -> int:
    """Tells what would stop a checkpoint; returns 1 if anything would."""
    from ctr_supervisor.engine import checkpoint_check

    found = checkpoint_check.check(surroundings.runtime(), container_id, asked)
    if as_json:
        output.write_json([obstacle.as_dict() for obstacle in found], "  ")
    else:
        output.write("".join(f"{obstacle.text()}\n" for obstacle in found))
    return 1 if found else 0
