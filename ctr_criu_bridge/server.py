"""One request of the engine: the other end of ctr_supervisor/engine/criu.py.

engine                                   bridge
 request  ────────────────────────────▶   starts criu swrk
          ◀────────────────────────────  criu (its pid)                     restore only
 cgroups  ────────────────────────────▶
          ◀────────────────────────────  progress (phase, bytes)            as often as it likes, unanswered
          ◀────────────────────────────  notify (script, pid; fd master)    for each notification of CRIU's
 go-on or error ──────────────────────▶
          ◀────────────────────────────  result or error                    then it ends
"""

import _signal  # type: ignore[import-not-found]  # builtin; `signal` takes 5 ms to import
import os

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.kernel import _kernel
from ctr_common.wire import Packet, Wire
from ctr_criu_bridge import checkpoint, features, mounts, restore, version, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SIG_DFL, SIG_IGN = 0, 1
SIG_SETMASK = 2
SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD = 1, 2, 3, 15, 17

SOCKET_VARIABLE = "CTR_CRIU_SOCKET"
MASTER = "master"


def serve(socket: int) -> int:
    """Answers the one request on the socket; returns the exit status."""
    # Ctrl-C reaches every process of a terminal: the engine decides what it means, and CRIU inherits this.
    for number in (SIGINT, SIGQUIT, SIGHUP):
        _signal.signal(number, SIG_IGN)
    for number in (SIGTERM, SIGCHLD):
        _signal.signal(number, SIG_DFL)
    _kernel.sigprocmask(SIG_SETMASK, ())
    with Wire(socket, "engine") as wire:
        try:
            with wire.expect("request") as request:
                result = Server(wire, request).run()
        except CtrError as error:
            wire.send_error(error)
            return 1
        wire.send("result", None, **result)
    return 0


class Server:
    """The request under way.

    Args:
        wire: to the engine.
        request: stays the caller's.
    """

    def __init__(self, wire: Wire, request: Packet) -> None:
        self.wire = wire
        self.request = request
        self.criu: str = request.get("criu", str, "")

    def run(self) -> "dict[str, Any]":
        """Does it; returns what the result says."""
        verb = self.request.get("verb", str, "")
        if verb == "version":
            number, text = version.ask(self.criu)
            return {"version": number, "text": text}
        if verb == "features":
            return {"features": features.ask(self.criu)}
        if verb in ("dump", "pre-dump"):
            return self.dump(pre_dump=verb == "pre-dump").as_dict()
        if verb == "restore":
            return self.restore().as_dict()
        raise ProtocolError(f'no request of criu is called "{verb}"')

    def folders(self) -> work.Folders:
        """The folders that came along."""
        return work.Folders(self.request.fd("images"), self.request.fd("work"), self.request.get("work_path", str, ""))

    def wishes(self) -> "dict[str, Any]":
        """What is wanted; fds are named there, and numbered by us."""
        wishes: "dict[str, Any]" = dict(self.request.get("wishes", dict, {}))
        wishes["inherit"] = [
            (key, fd if isinstance(fd, int) else self.request.fd(str(fd))) for key, fd in wishes.get("inherit", ())
        ]
        return wishes

    def dump(self, *, pre_dump: bool) -> work.Outcome:
        """Dump, pre-dump: in a process group of its own, as whoever ends the engine's must not end CRIU in the middle.

        The processes that it has in its hands then would run into its code. Without an engine it gives up, and leaves
        them as they were.
        """
        os.setpgid(0, 0)
        mounts.apart_if_possible()
        status = self.request.fd("status") if "status" in self.request.fd_names else -1
        return checkpoint.dump(
            self.criu,
            self.wishes(),
            self.folders(),
            self.notify,
            pre_dump=pre_dump,
            status_fd=status,
            progress=self.progress_wanted(),
        )

    def restore(self) -> work.Outcome:
        """Restore."""
        mounts.apart()
        mounts.bind_root(self.request.get("rootfs", str, ""), self.request.get("root", str, ""))
        wishes = self.wishes()
        wishes["root"] = self.request.get("root", str, "")
        places = self.folders()
        with mounts.cover_without_symlinks(self.request.get("work_dir", str, ""), places.work) as covered:
            places.work = covered.fileno()
            return restore.restore(
                self.criu,
                wishes,
                places,
                self.notify,
                started=self.started,
                progress=self.progress_wanted(),
            )

    def progress_wanted(self) -> "work.Progress | None":
        """Who is told of progress, if anybody wants to know."""
        return self.progress if self.request.get("progress", bool, False) else None

    def progress(self, phase: str, size: int) -> None:
        """Tells the engine how far it is; one that is gone notices with the next notification."""
        try:
            self.wire.send("progress", None, phase=phase, bytes=size)
        except ProtocolError:
            pass

    def started(self, pid: int) -> list[tuple[str, str]]:
        """Has the engine put CRIU into the container's cgroups."""
        self.wire.send("criu", None, pid=pid)
        with self.wire.expect("cgroups") as answer:
            return [(str(controller), str(path)) for controller, path in answer.get("roots", list, [])]

    def notify(self, script: str, pid: int, fds: "Sequence[int]") -> None:
        """Tells the engine of a notification, and waits for its answer.

        Raises:
            CtrError: it says no, or is gone.
        """
        self.wire.send("notify", {MASTER: fds[0]} if fds else None, script=script, pid=pid)
        self.wire.expect("go-on").close()


def inherited_socket() -> int | None:
    """The socket to the engine, None where this was started from a shell."""
    text = os.environ.pop(SOCKET_VARIABLE, "")
    return int(text) if text.isascii() and text.isdigit() else None
