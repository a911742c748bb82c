"""What changes under a state root, told by inotify: it costs nothing while nothing happens.

What has happened by the time of a `read` is in it: the kernel queues an event before the system call behind it returns.
"""

import errno
import os

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
)

ROOT_EVENTS = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
# Files are written by rename, the fifo is removed at the start, and whoever lets go of the lock has done something.
CONTAINER_EVENTS = IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE | IN_ONLYDIR

# inotify_add_watch(2): no watch is left (fs.inotify.max_user_watches), or no memory for one.
NO_MORE = (errno.ENOSPC, errno.ENOMEM)


class Found:
    """What a `read` tells.

    Attributes:
        lost: more has happened than the kernel could tell; everything has to be looked at.
        directories: name of a container's directory that came or went → whether the one that was there has gone.
        changed: watch number of a container's directory → names in it.
    """

    __slots__ = ("changed", "directories", "lost")

    def __init__(self) -> None:
        self.lost = False
        self.directories: dict[str, bool] = {}
        self.changed: dict[int, set[str]] = {}


class Changes:
    """Watches a state root and the directories of its containers.

    Args:
        root: the state root.

    Attributes:
        usable: False where this user has no inotify instance left; all has to be looked at by stat then.
        complete: the root itself is watched.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._root_watch = -1
        try:
            self._fd = Fd(_kernel.inotify_init(os.O_NONBLOCK))
        except OSError:
            self._fd = Fd(-1)
        self.usable = self._fd.number >= 0

    @property
    def complete(self) -> bool:
        """Whether containers that come and go are told of."""
        return self._root_watch >= 0

    def fileno(self) -> int:
        """The fd, readable when there is something to read."""
        return self._fd.fileno()

    def watch_root(self) -> bool:
        """Starts with the root; False when that is not possible."""
        if self.usable and self._root_watch < 0:
            try:
                self._root_watch = _kernel.inotify_add_watch(self.fileno(), self.root, ROOT_EVENTS)
            except OSError:
                return False
        return self.complete

    def watch(self, path: str) -> int:
        """Watches a container's directory.

        Returns:
            The number of the watch, -1 when there is none to be had.
        """
        if not self.usable:
            return -1
        try:
            return _kernel.inotify_add_watch(self.fileno(), path, CONTAINER_EVENTS)
        except OSError as error:
            if error.errno in (*NO_MORE, errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                return -1
            raise

    def forget(self, watch: int) -> None:
        """Ends a watch; one of a removed directory has ended by itself."""
        try:
            _kernel.inotify_rm_watch(self.fileno(), watch)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read(self) -> Found | None:
        """What has happened since the last call; None for nothing."""
        if not self.usable:
            return None
        found = None
        while True:
            try:
                events = _kernel.read_inotify(self.fileno())
            except BlockingIOError:
                return found
            found = found or Found()
            for watch, mask, name in events:
                self._take(found, watch, mask, name)

    def _take(self, found: Found, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            found.lost = True
        elif watch == self._root_watch:
            if mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED):
                if mask & IN_MOVE_SELF:
                    self.forget(watch)
                self._root_watch = -1
                found.lost = True
            elif mask & IN_ISDIR:
                gone = bool(mask & (IN_DELETE | IN_MOVED_FROM))
                found.directories[name] = gone or found.directories.get(name, False)
        elif name:
            found.changed.setdefault(watch, set()).add(name)

    def close(self) -> None:
        """Ends all watches."""
        self._fd.close()
