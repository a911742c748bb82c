"""Records the steps of a command in all of its processes, in the format of Chrome's tracing.

The file is a JSON array of events, as chrome://tracing, Perfetto and speedscope read it. Each process writes its events
with one write(2) to the end of the file; the process that opened it writes last, and closes the array.

All times are CLOCK_REALTIME: time namespaces shift the other clocks.
"""

import os
import time

from ctr_common import fastjson, trace
from ctr_common.log import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENGINE = "engine"
WORKER = "setup worker"
# How ctr-init's stages call themselves in their lines, and in which order a reader wants to see the processes.
STAGES = {"ctr-init:0": "ctr-init, stage 0", "ctr-init:1": "container process"}
NUMBERS = {ENGINE: 1, "ctr-init, stage 0": 2, "container process": 3, WORKER: 4}

# Marks the lines of ctr-init that end a step; see c/nsexec/error.h.
STEP_MARK = "="


class Recorder:
    """Events of one process on their way into the file.

    Args:
        path: the file; replaced if it is there.
        since_start: this process was started for what is recorded.

    Attributes:
        fd: the file; a fork needs it too.
        process: who this is.

    Raises:
        OSError: the file can't be written.
    """

    def __init__(self, path: str, since_start: bool = True) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.write(self.fd, b"[\n")
        self.process = ENGINE
        self._events: list[dict[str, Any]] = []
        self._last: dict[str, int] = {}
        if since_start:
            now = time.time_ns()
            # What the interpreter did before anybody could look: its CPU time, which is about its wall time.
            self.add(ENGINE, "interpreter and imports", now - time.process_time_ns(), now)

    def span(self, name: str, detail: str = "") -> "Span":
        """A context manager that records what is done in it.

        Args:
            name: of the step.
            detail: what the step is about.
        """
        return Span(self, name, detail)

    def add(self, process: str, name: str, begin: int, end: int, detail: str = "") -> None:
        """Records one step.

        Args:
            process: whose.
            name: of the step.
            begin: nanoseconds since the epoch.
            end: the same.
            detail: what the step is about.
        """
        event: dict[str, Any] = {
            "name": name,
            "ph": "X",
            "ts": begin / 1000,
            "dur": (end - begin) / 1000,
            "pid": NUMBERS[process],
            "tid": NUMBERS[process],
        }
        if detail:
            event["args"] = {"detail": detail}
        self._events.append(event)

    def line(self, line: str) -> bool:
        """Takes a line of ctr-init; False if it does not end a step.

        Args:
            line: `seconds stage =step`.
        """
        stamp, _, rest = line.partition(" ")
        stage, _, text = rest.partition(" ")
        if not text.startswith(STEP_MARK) or stage not in STAGES:
            return False
        seconds, _, fraction = stamp.partition(".")
        now = int(seconds) * 1_000_000_000 + int(fraction)
        process = STAGES[stage]
        # Each step goes from the end of the one before.
        self.add(process, text[1:], self._last.get(process, now), now)
        self._last[process] = now
        return True

    def forked(self, process: str) -> None:
        """Makes this the recorder of a fork: what its parent has recorded is its parent's.

        Args:
            process: who this is now.
        """
        self.process = process
        self._events = []

    def finish(self) -> None:
        """Writes what was recorded, and records no more; the engine completes the file. A full disk stops nobody."""
        trace.recorder = None
        lines = [fastjson.dumps(event) for event in self._events]
        self._events = []
        if self.process == ENGINE:
            lines += [
                fastjson.dumps({"name": "process_name", "ph": "M", "pid": number, "args": {"name": name}})
                for name, number in NUMBERS.items()
            ]
            text = ",\n".join(lines) + "\n]\n"
        else:
            text = "".join(line + ",\n" for line in lines)
        try:
            write_all(self.fd, text.encode())
        except OSError:
            pass
        os.close(self.fd)


class Span:
    """One step under way.

    Args:
        owner: who records it.
        name: of the step.
        detail: what the step is about.
    """

    __slots__ = ("begin", "detail", "name", "owner")

    def __init__(self, owner: Recorder, name: str, detail: str) -> None:
        self.owner = owner
        self.name = name
        self.detail = detail
        self.begin = 0

    def __enter__(self) -> None:
        self.begin = time.time_ns()

    def __exit__(self, *_: object) -> None:
        self.owner.add(self.owner.process, self.name, self.begin, time.time_ns(), self.detail)


def start(path: str, since_start: bool = True) -> None:
    """Begins to record in this process.

    Args:
        path: file for the events; in a directory, a file with a name of its own.
        since_start: see Recorder.

    Raises:
        OSError: it can't be written.
    """
    if os.path.isdir(path):
        path = f"{path}/ctrun-{time.time_ns() // 1_000_000}-{os.getpid()}.json"
    trace.recorder = Recorder(path, since_start)
