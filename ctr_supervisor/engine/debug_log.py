"""The lines of ctr-init, on their way into our log (`--debug`) and into a trace (`--trace`)."""

import os

from ctr_common import trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65536


class DebugLog:
    """A pipe that ctr-init writes lines to, `seconds stage text`, and drops those that do not fit.

    Args:
        note: takes each line, without its time; None where only the trace wants them.

    Attributes:
        writing: the end for ctr-init.
    """

    __slots__ = ("_note", "_partial", "_reading", "writing")

    def __init__(self, note: "Callable[[str], None] | None") -> None:
        self._note = note
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._partial = b""

    def handed_over(self) -> None:
        """Closes the end for ctr-init, which has a copy of its own."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def drain(self) -> None:
        """Passes on what has come."""
        if self._reading < 0:
            return
        try:
            while data := os.read(self._reading, CHUNK):
                *lines, self._partial = (self._partial + data).split(b"\n")
                for line in lines:
                    text = line.decode(errors="replace")
                    if trace.recorder is not None and trace.recorder.line(text):
                        continue
                    if self._note is not None:
                        self._note(text.partition(" ")[2])
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Passes on what has come, and listens no more."""
        self.handed_over()
        self.drain()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
