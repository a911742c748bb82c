"""`ctr-criu-bridge`: the engine's request on the inherited socket, or one verb of the command line."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from ctr_common import folders
from ctr_common.errors import CriuError, CtrError, UsageError
from ctr_common.fd import Fd
from ctr_common.version import VERSION
from ctr_criu_bridge import (
    checkpoint,
    features,
    hints,
    log_errors,
    mounts,
    options,
    restore,
    server,
    swrk,
    version,
    work,
)

WIDTH = 80
TEXT, JSON = "text", "json"
FAILED, MISUSED = 1, 2

DESCRIPTION = """\
Talks to CRIU: one checkpoint, restore, version or feature request, as "ctrun
checkpoint" and "ctrun restore" make them, without a container around it."""


def formatter(prog: str) -> argparse.RawDescriptionHelpFormatter:
    """Help for terminals of 80 columns, whatever this one has."""
    return argparse.RawDescriptionHelpFormatter(prog, width=WIDTH, max_help_position=30)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="ctr-criu-bridge", description=DESCRIPTION, formatter_class=formatter)
    top.add_argument("--version", action="version", version=f"ctr-criu-bridge {VERSION}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text.capitalize() + ".", formatter_class=formatter)
        added.add_argument("--criu", default="criu", metavar="PATH", help="the criu to use (default: on PATH)")
        added.add_argument("--format", choices=(TEXT, JSON), default=TEXT, help="of the output")
        return added

    verb("version", "print the version of CRIU")
    verb("features", "print what this CRIU and this kernel can do together")
    verb("check", "find out whether this CRIU works with this kernel")
    for name, text in (
        ("dump", "dump a process tree; it ends unless --leave-running"),
        ("pre-dump", "dump the memory of a process tree, which goes on"),
    ):
        added = verb(name, text)
        added.add_argument("--pid", type=int, required=True, help="the first process of the tree")
        add_folders(added)
        add_common(added)
        added.add_argument("--leave-running", action="store_true", help="let the tree go on afterwards")
        added.add_argument("--parent-path", metavar="DIR", help="earlier images, relative to --images-dir")
        added.add_argument("--ghost-limit", type=int, metavar="BYTES", help="largest deleted file to keep")
        added.add_argument("--page-server", metavar="ADDRESS:PORT", help="send the pages there")
        added.add_argument("--freeze-cgroup", metavar="DIR", help="freeze the tree with this cgroup")
    added = verb("restore", "restore a process tree; prints its first process and leaves it running")
    add_folders(added)
    add_common(added)
    added.add_argument("--root", metavar="DIR", help="mount point that becomes the tree's root")
    added = verb("lazy-pages", "serve memory pages to a restore --lazy-pages; ends when all were fetched")
    add_folders(added)
    added.add_argument("--page-server", metavar="ADDRESS:PORT", help="get the pages from there, not from the images")
    added.add_argument("--status-fd", type=int, metavar="FD", help="gets a zero byte when it is ready")
    added = verb("log-errors", "print the errors in a log of CRIU, with what led to them and what to do")
    added.add_argument("log", metavar="LOG", help="dump.log or restore.log")
    return top


def add_folders(to: argparse.ArgumentParser) -> None:
    """The flags that name folders."""
    to.add_argument("--images-dir", required=True, metavar="DIR", help="the folder with the images")
    to.add_argument("--work-dir", metavar="DIR", help="folder for log and statistics (default: --images-dir)")


def add_common(to: argparse.ArgumentParser) -> None:
    """The flags that dump and restore share."""
    for flag, text in (
        ("tcp-established", "keep established TCP connections"),
        ("tcp-close", "close established TCP connections"),
        ("ext-unix-sk", "allow unix sockets to outside of the tree"),
        ("shell-job", "the tree uses a terminal outside of it"),
        ("file-locks", "keep file locks"),
        ("link-remap", "keep deleted files that have another name"),
        ("lazy-pages", "leave the memory for later"),
    ):
        to.add_argument(f"--{flag}", action="store_true", help=text)
    to.add_argument("--external", action="append", default=[], metavar="KEY:VALUE", help="a mount from outside")
    to.add_argument("--cgroup-mode", metavar="MODE", help=", ".join(options.CGROUP_MODES))
    to.add_argument("--network-lock", metavar="WAY", help=", ".join(options.NETWORK_LOCKS))
    to.add_argument("--config", metavar="FILE", help="a configuration file of CRIU")


BOOLEAN_WISHES = (
    "tcp_established",
    "tcp_close",
    "ext_unix_sk",
    "shell_job",
    "file_locks",
    "link_remap",
    "lazy_pages",
    "leave_running",
)
VALUE_WISHES = {
    "pid": "pid",
    "cgroup_mode": "cgroup_mode",
    "network_lock": "network_lock",
    "config": "config_file",
    "ghost_limit": "ghost_limit",
    "freeze_cgroup": "freeze_cgroup",
    "root": "root",
    "parent_path": "parent_img",
}


def wishes(given: argparse.Namespace) -> dict[str, Any]:
    """What the flags ask for.

    Raises:
        UsageError: a value is not possible.
    """
    values = vars(given)
    asked: dict[str, Any] = {name: True for name in BOOLEAN_WISHES if values.get(name)}
    for flag, name in VALUE_WISHES.items():
        if values.get(flag) is not None:
            asked[name] = values[flag]
    if "parent_img" in asked:
        asked["track_mem"] = True
    if values.get("page_server"):
        asked["page_server"] = list(address(values["page_server"]))
    mounts = [text.partition(":")[::2] for text in given.external]
    if mounts:
        asked["external_mounts"] = [list(mount) for mount in mounts]
    return asked


def address(text: str) -> tuple[str, int]:
    """ADDRESS:PORT taken apart.

    Raises:
        UsageError: it is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f'--page-server is "{text}", expected ADDRESS:PORT')
    return host.removeprefix("[").removesuffix("]"), int(port)


def show(given: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    """Prints a result in the form that was asked for."""
    print(json.dumps(data, indent=2) if given.format == JSON else text)


def open_folders(given: argparse.Namespace) -> tuple[work.Folders, list[Fd]]:
    """The folders that the flags name, and the fds to close afterwards."""
    os.makedirs(given.images_dir, 0o700, exist_ok=True)
    images = folders.without_symlinks(folders.open_folder(given.images_dir, "images folder"))
    work_path = given.work_dir or given.images_dir
    os.makedirs(work_path, 0o700, exist_ok=True)
    working = folders.without_symlinks(folders.open_folder(work_path, "work folder"))
    return work.Folders(images.fileno(), working.fileno(), work_path), [images, working]


def run_version(given: argparse.Namespace) -> None:
    """`version`."""
    number, text = version.ask(given.criu)
    show(given, {"version": number, "text": text, "path": swrk.find(given.criu)}, text)


def run_features(given: argparse.Namespace) -> None:
    """`features`."""
    found = features.ask(given.criu)
    show(given, found, "\n".join(f"{name} {'yes' if there else 'no'}" for name, there in found.items()))


def run_check(given: argparse.Namespace) -> None:
    """`check`.

    Raises:
        CriuError: it does not work.
    """
    number, text = version.ask(given.criu)
    version.require(number, version.MINIMUM, "checkpoint and restore")
    found = features.ask(given.criu)
    show(given, {"version": number, "works": True, "features": found}, f"criu {text} works with this kernel")


def run_dump(given: argparse.Namespace) -> None:
    """`dump` and `pre-dump`."""
    if not mounts.shared_with(given.pid):
        mounts.apart_if_possible()
    places, owned = open_folders(given)
    try:
        outcome = checkpoint.dump(given.criu, wishes(given), places, pre_dump=given.verb == "pre-dump")
    finally:
        for fd in owned:
            fd.close()
    show(given, outcome.as_dict(), describe(outcome))


def run_restore(given: argparse.Namespace) -> None:
    """`restore`."""
    if mounts.saved_in(given.images_dir):
        mounts.apart_if_possible()
    places, owned = open_folders(given)
    try:
        outcome = restore.restore(given.criu, wishes(given), places, sibling=True)
    finally:
        for fd in owned:
            fd.close()
    show(given, outcome.as_dict(), f"pid {outcome.pid}")


def describe(outcome: work.Outcome) -> str:
    """A dump's figures for a person."""
    figures = outcome.figures
    frozen = figures.get("frozen_time", 0) / 1000
    return f"{outcome.size} bytes, {figures.get('pages_written', 0)} pages, frozen for {frozen:.0f} ms"


def run_lazy_pages(given: argparse.Namespace) -> None:
    """`lazy-pages`: this process becomes CRIU's page daemon."""
    path = swrk.find(given.criu)
    argv = [path, "lazy-pages", "--images-dir", given.images_dir, "--work-dir", given.work_dir or given.images_dir]
    if given.page_server:
        host, port = address(given.page_server)
        argv += ["--page-server", "--address", host, "--port", str(port)]
    if given.status_fd is not None:
        os.set_inheritable(given.status_fd, True)
        argv += ["--status-fd", str(given.status_fd)]
    os.execv(path, argv)


def run_log_errors(given: argparse.Namespace) -> None:
    """`log-errors`."""
    directory, name = os.path.split(given.log)
    with folders.open_folder(directory or ".", "folder of the log") as folder:
        if not os.path.lexists(given.log):
            raise CriuError("no such log", path=given.log)
        lines = log_errors.read(folder.fileno(), name)
    told = log_errors.errors(lines)
    cause = hints.find(told)
    data = {
        "errors": told,
        "lines": list(log_errors.with_context(lines)),
        "cause": cause.name if cause else "",
        "hint": cause.hint if cause else "",
    }
    text = "\n".join(data["lines"])
    show(given, data, f"{text}\nhint: {cause.hint}" if cause else text)


RUN = {
    "version": run_version,
    "features": run_features,
    "check": run_check,
    "dump": run_dump,
    "pre-dump": run_dump,
    "restore": run_restore,
    "lazy-pages": run_lazy_pages,
    "log-errors": run_log_errors,
}


def fail(given: argparse.Namespace, error: CtrError) -> None:
    """Tells of a failure in the form that was asked for."""
    if given.format == JSON:
        print(json.dumps({"error": error.as_dict()}, indent=2))
        return
    details = error.details if isinstance(error, CriuError) else ()
    lines = [*details, f"ctr-criu-bridge: {error}", *([f"hint: {error.hint}"] if error.hint else [])]
    print("\n".join(lines), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the engine, or runs one verb; returns the exit status.

    Args:
        arguments: without the name of the program; None for the ones that this process was started with.
    """
    socket = server.inherited_socket()
    if socket is not None:
        return server.serve(socket)
    given = parser().parse_args(arguments)
    try:
        RUN[given.verb](given)
    except UsageError as error:
        fail(given, error)
        return MISUSED
    except CtrError as error:
        fail(given, error)
        return FAILED
    except OSError as error:
        fail(given, CtrError.from_os_error(error))
        return FAILED
    return 0
