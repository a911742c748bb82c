"""What dump and restore have in common: folders, the request's life, progress, and what is told of a failure."""

import os

from ctr_common.errors import CriuError
from ctr_criu_bridge import session
from ctr_criu_bridge.swrk import Swrk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ctr_criu_bridge.stats import Figures

    # Told while CRIU works: a phase, and how many bytes there are in the images folder.
    Progress = Callable[[str, int], None]


class Folders:
    """The folders of one request; both stay the caller's.

    Args:
        images: fd of the folder with the images.
        work: fd of the folder for log, statistics and sockets.
        work_path: what a person calls the latter.
    """

    def __init__(self, images: int, work: int, work_path: str = "") -> None:
        self.images = images
        self.work = work
        self.work_path = work_path

    def bytes_written(self) -> int:
        """Size of all files in the images folder."""
        total = 0
        with os.scandir(self.images) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                except OSError:
                    pass
        return total


class Outcome:
    """What a request that succeeded gave.

    Args:
        pid: of the restored process; 0 for a dump.
        figures: CRIU's statistics.
        version: of CRIU.
        size: bytes in the images folder.
    """

    def __init__(self, pid: int, figures: "Figures", version: int, size: int) -> None:
        self.pid = pid
        self.figures = figures
        self.version = version
        self.size = size

    def as_dict(self) -> "dict[str, Any]":
        """As messages and scripts have it."""
        return {"pid": self.pid, "stats": self.figures, "criu_version": self.version, "bytes": self.size}


# What CRIU is doing from the moment of a notification on.
PHASES = {
    "pre-dump": "freezing",
    "network-lock": "dumping",
    "post-dump": "finishing",
    "network-unlock": "finishing",
    "pre-restore": "preparing",
    "setup-namespaces": "restoring",
    "post-setup-namespaces": "restoring",
    "post-restore": "resuming",
    "pre-resume": "resuming",
    "status-ready": "serving pages",
}


def run(
    swrk: Swrk,
    request: "dict[str, Any]",
    folders: Folders,
    log_file: str,
    notify: "session.Notify" = session.ignore_notifications,
    progress: "Progress | None" = None,
) -> "dict[str, Any]":
    """Asks CRIU and gives its response; a failure comes with what the log says.

    Args:
        log_file: its name in the work folder.
        progress: is told of phases and sizes.

    Raises:
        CriuError: with the errors of the log, and a hint where the cause is known.
        CtrError: what `notify` raised.
    """
    phase = "starting"

    def tick() -> None:
        if progress is not None:
            progress(phase, folders.bytes_written())

    def on_notify(script: str, pid: int, fds: "Sequence[int]") -> None:
        nonlocal phase
        phase = PHASES.get(script, phase)
        tick()
        notify(script, pid, fds)

    tick()
    try:
        return session.ask(swrk, request, on_notify, tick if progress is not None else None)
    except CriuError as error:
        # It may still undo what it did, and write about that.
        swrk.end()
        raise explain(error, folders, log_file, swrk.output()) from None


def explain(error: CriuError, folders: Folders, log_file: str, output: str = "") -> CriuError:
    """The error with what is known about it: the log's errors, its path, a hint.

    Args:
        error: changed here.
        output: what CRIU wrote beside its log.
    """
    from ctr_criu_bridge import hints, log_errors

    lines = log_errors.read(folders.work, log_file)
    told = log_errors.errors(lines)
    cause = hints.find([error.message, *told, *output.splitlines()])
    if cause is not None:
        error.hint = cause.hint
    error.details = log_errors.details(folders.work, log_file)
    if told and told[0] not in error.message and not error.message.endswith(told[0].rstrip(".")):
        error.message += f": {told[0]}"
    elif not lines and output.strip():
        error.message += f": {output.strip().splitlines()[-1]}"
    if lines and folders.work_path:
        error.message += f": log file: {folders.work_path}/{log_file}"
    return error
