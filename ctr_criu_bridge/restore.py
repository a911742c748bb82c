"""Restore: the process tree in an images folder runs again, as a child of this process's."""

from ctr_criu_bridge import features, options, rpc, session, stats, version, work
from ctr_criu_bridge.swrk import Swrk

LOG_FILE = "restore.log"
STATS_FILE = "stats-restore"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # Controller (comma-separated ones apart, "" for v2) and path of the cgroup that takes the place of the dumped root.
    CgroupRoots = Sequence[tuple[str, str]]


def restore(
    criu: str,
    wishes: "options.Wishes",
    folders: work.Folders,
    notify: "session.Notify" = session.ignore_notifications,
    *,
    started: "Callable[[int], CgroupRoots] | None" = None,
    sibling: bool = True,
    progress: "work.Progress | None" = None,
) -> work.Outcome:
    """Restores what the images hold. CRIU has this process's stdio.

    Args:
        criu: path, or name on PATH.
        wishes: see options.py.
        started: gets CRIU's pid, to put it into the container's cgroups before it forks anything, and gives the roots
            that the cgroups of the images are moved to.
        sibling: the restored process becomes CRIU's sibling, and so this process's child.

    Returns:
        with the pid of the restored process in this pid namespace.

    Raises:
        CriuError: it did not work; nothing of the tree is left.
    """
    options.check(wishes)
    fds = [fd for _, fd in wishes.get("inherit", ()) if fd > 2]
    roots: list[dict[str, str]] = []

    def enter_cgroups(running: Swrk) -> None:
        # Whoever moves a process waits for the kernel (an RCU grace period), and CRIU has its own start to do.
        if started is not None:
            roots[:] = [{"ctrl": controller, "path": path} for controller, path in started(running.pid)]

    inherited = [folders.images, folders.work, *fds]
    running, found, _ = version.start(criu, inherited, keep_stdio=True, started=enter_cgroups)
    with running:
        version.require(found, version.MINIMUM, "checkpoint and restore")
        if wishes.get("lazy_pages"):
            features.require(running, found, "lazy_pages", "--lazy-pages")
        filled = options.common(folders, LOG_FILE)
        filled["rst_sibling"] = sibling
        options.fill(filled, wishes, found)
        filled["cg_root"] = roots
        response = work.run(running, rpc.request("RESTORE", opts=filled), folders, LOG_FILE, notify, progress)
        running.end()
    pid = response.get("restore", {}).get("pid", 0)
    return work.Outcome(pid, stats.read(folders.work, STATS_FILE), found, folders.bytes_written())
