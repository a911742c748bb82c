"""Restore: the process tree in an images folder runs again, as a child of this process's."""

from collections.abc import Callable, Sequence

from ctr_criu_bridge import features, options, rpc, session, stats, version, work
from ctr_criu_bridge.swrk import Swrk

LOG_FILE = "restore.log"
STATS_FILE = "stats-restore"

# Controller (comma-separated ones apart, "" for v2) and path of the cgroup that takes the place of the dumped root.
CgroupRoots = Sequence[tuple[str, str]]


def restore(
    criu: str,
    wishes: options.Wishes,
    folders: work.Folders,
    notify: session.Notify = session.ignore_notifications,
    *,
    started: Callable[[int], CgroupRoots] | None = None,
    sibling: bool = True,
    progress: work.Progress | None = None,
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
    found, _ = version.ask(criu)
    version.require(found, version.MINIMUM, "checkpoint and restore")
    if wishes.get("lazy_pages"):
        features.require(criu, found, "lazy_pages", "--lazy-pages")
    filled = rpc.Options(
        images_dir_fd=folders.images,
        work_dir_fd=folders.work,
        log_level=options.LOG_LEVEL,
        log_file=LOG_FILE,
        notify_scripts=True,
        manage_cgroups=True,
        orphan_pts_master=True,
        rst_sibling=sibling,
    )
    options.fill(filled, wishes, found)
    fds = [fd for _, fd in wishes.get("inherit", ()) if fd > 2]
    with Swrk(criu, [folders.images, folders.work, *fds], keep_stdio=True) as running:
        if started is not None:
            for controller, path in started(running.pid):
                filled.cg_root.add(ctrl=controller, path=path)
        response = work.run(running, rpc.request("RESTORE", opts=filled), folders, LOG_FILE, notify, progress)
        running.end()
    figures = stats.read(folders.work, STATS_FILE)
    return work.Outcome(response.restore.pid, figures, found, folders.bytes_written())
