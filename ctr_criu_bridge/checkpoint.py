"""Dump and pre-dump: a running process tree into an images folder."""

from ctr_criu_bridge import features, options, rpc, session, stats, version, work

LOG_FILE = "dump.log"
STATS_FILE = "stats-dump"


def dump(
    criu: str,
    wishes: "options.Wishes",
    folders: work.Folders,
    notify: "session.Notify" = session.ignore_notifications,
    *,
    pre_dump: bool = False,
    status_fd: int = -1,
    progress: "work.Progress | None" = None,
) -> work.Outcome:
    """Dumps the tree of the process `wishes["pid"]`.

    Args:
        criu: path, or name on PATH.
        wishes: see options.py.
        pre_dump: its memory only; it goes on running.
        status_fd: gets a zero byte once the pages of a lazy dump can be fetched, by CRIU itself; only for a CRIU that
            does not announce that as "status-ready".

    Raises:
        CriuError: it did not work; the processes run on.
    """
    options.check(wishes)
    inherited = [folders.images, folders.work]
    if wishes.get("lazy_pages") and status_fd >= 0:
        inherited.append(status_fd)
    running, found, _ = version.start(criu, inherited)
    with running:
        version.require(found, version.MINIMUM, "checkpoint and restore")
        if pre_dump or wishes.get("track_mem"):
            features.require(running, found, "mem_track", "--pre-dump" if pre_dump else "--parent-path")
        if wishes.get("lazy_pages"):
            features.require(running, found, "lazy_pages", "--lazy-pages")
        filled = options.common(folders, LOG_FILE)
        options.fill(filled, wishes, found)
        if wishes.get("lazy_pages") and status_fd >= 0 and found < version.STATUS_READY:
            filled["status_fd"] = status_fd
        if pre_dump:
            filled["track_mem"] = True
        kind = "PRE_DUMP" if pre_dump else "DUMP"
        work.run(running, rpc.request(kind, opts=filled), folders, LOG_FILE, notify, progress)
        # After a pre-dump CRIU waits for the next request of a chain; for it, the closed socket is the end. Every
        # pre-dump here is a request of its own, so its exit status says nothing.
        running.end()
    return work.Outcome(0, stats.read(folders.work, STATS_FILE), found, folders.bytes_written())
