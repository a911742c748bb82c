"""The ordered end of containers: each gets its stop signal, a time to obey it, and then is killed."""

from collections.abc import Callable

from ctr_common.errors import CtrError
from ctr_supervisor.cli.kill import parse_signal
from ctr_supervisor.engine.container import RUNNING
from ctr_supervisor.service.loop import Loop, Timer
from ctr_supervisor.service.registry import Registry

SIGKILL, SIGTERM = 9, 15

# image-spec, conversion.md: where an image's STOPSIGNAL ends up
STOP_SIGNAL = "org.opencontainers.image.stopSignal"

# Seconds that a container gets when nobody says how many.
GRACE = 10.0
# Seconds for the kernel to end what was killed.
KILL_TIME = 10.0


class Shutdown:
    """One ordered end under way.

    Args:
        kill: has every process of a container killed, whatever it takes, by its cgroup; must not block.
        on_done: called once, when all have ended or some can't be ended.
        grace: seconds.

    Attributes:
        stopped: ids that ended by themselves.
        killed: ids that had to be killed.
        stuck: ids that did not end even so.
    """

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        kill: Callable[[str], None],
        on_done: "Callable[[Shutdown], None]",
        grace: float = GRACE,
    ) -> None:
        self.loop = loop
        self.registry = registry
        self.stopped: list[str] = []
        self.killed: list[str] = []
        self.stuck: list[str] = []
        self.done = False
        self._kill = kill
        self._on_done = on_done
        self._grace = grace
        self._left: set[str] = set()
        self._hit: set[str] = set()
        self._timer: Timer | None = None

    def start(self) -> None:
        """Sends the stop signals."""
        self._left = {container_id for container_id, _ in self.registry.live()}
        self._timer = self.loop.call_later(self._grace, self.kill)
        for container_id in sorted(self._left):
            try:
                self._stop(container_id)
            except CtrError:
                self._ended(container_id)
        self._check()

    def _stop(self, container_id: str) -> None:
        self.registry.wait(container_id, lambda _: self._ended(container_id))
        # One that waits for its start or is frozen hears no signal but this.
        if self.registry.status(container_id) == RUNNING:
            self.registry.signal(container_id, stop_signal(self.registry.state(container_id)))
        else:
            self._end(container_id)

    def kill(self) -> None:
        """Does not wait any longer."""
        if self.done:
            return
        if self._timer is not None:
            self._timer.cancel()
        for container_id in sorted(self._left):
            self._end(container_id)
        self._timer = self.loop.call_later(KILL_TIME, self._give_up)

    def _end(self, container_id: str) -> None:
        self._hit.add(container_id)
        self.registry.signal(container_id, SIGKILL)
        self._kill(container_id)

    def _give_up(self) -> None:
        self.stuck = sorted(self._left)
        self._left.clear()
        self._check()

    def _ended(self, container_id: str) -> None:
        if container_id in self._left:
            self._left.discard(container_id)
            (self.killed if container_id in self._hit else self.stopped).append(container_id)
            self._check()

    def _check(self) -> None:
        if not self._left and not self.done:
            self.done = True
            if self._timer is not None:
                self._timer.cancel()
            self._on_done(self)


def stop_signal(state: dict[str, object]) -> int:
    """The signal by which a container is to be stopped: its image's, or SIGTERM.

    Args:
        state: contents of state.json.
    """
    annotations = state.get("annotations")
    wanted = annotations.get(STOP_SIGNAL) if isinstance(annotations, dict) else None
    if not isinstance(wanted, str) or not wanted:
        return SIGTERM
    try:
        return parse_signal(wanted)
    except CtrError:
        return SIGTERM
