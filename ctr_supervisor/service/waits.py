"""Who waits for the end of which process of an exec; and how containers ended that are there no more."""

from collections.abc import Callable

from ctr_common.errors import WrongState

# Ends of processes that nobody has asked for yet; beyond so many the oldest is forgotten.
REMEMBERED = 4096

Answer = Callable[[int], None]


class Waits:
    """Ends of processes of execs, for those who wait or will.

    The process of an exec is the supervisor's child once the job that made it has ended; its status is remembered until
    somebody asks for it. How a container ended is written down elsewhere, and remembered here once that is deleted.
    """

    def __init__(self) -> None:
        self._execs: dict[tuple[str, int], int | None] = {}
        self._by_pid: dict[int, str] = {}
        self._deleted: dict[tuple[str, int], int] = {}
        self._waiting: dict[tuple[str, int], list[Answer]] = {}

    def exec_made(self, container_id: str, pid: int) -> None:
        """A process that will be our child."""
        if len(self._execs) >= REMEMBERED:
            for key in [key for key, status in self._execs.items() if status is not None][: REMEMBERED // 2]:
                del self._execs[key]
        self._execs[container_id, pid] = None
        self._by_pid[pid] = container_id

    def container_deleted(self, container_id: str, pid: int, status: int) -> None:
        """A container is there no more.

        Args:
            pid: of its init process.
            status: as a shell shows it.
        """
        self._deleted.pop((container_id, pid), None)
        self._deleted[container_id, pid] = status
        if len(self._deleted) > REMEMBERED:
            del self._deleted[next(iter(self._deleted))]

    def child_ended(self, pid: int, status: int) -> str | None:
        """A child was reaped.

        Args:
            status: as a shell shows it.

        Returns:
            The container that it was an exec of, None for any other child.
        """
        container_id = self._by_pid.pop(pid, None)
        if container_id is not None:
            self._execs[container_id, pid] = status
            self._tell((container_id, pid), status)
        return container_id

    def wait(self, container_id: str, pid: int, answer: Answer) -> Callable[[], None]:
        """Has the end of an exec's process told, or that of a deleted container's; at once where it has happened.

        Args:
            answer: gets the status.

        Returns:
            Call it to be told no more.

        Raises:
            WrongState: no exec made a process of that pid.
        """
        key = (container_id, pid)
        status = self._execs.get(key, self._deleted.get(key))
        if status is None and key not in self._execs:
            raise WrongState(f"no exec in container {container_id} has made a process {pid}")
        if status is not None:
            answer(status)
            return lambda: None
        self._waiting.setdefault(key, []).append(answer)

        def cancel() -> None:
            waiting = self._waiting.get(key, [])
            if answer in waiting:
                waiting.remove(answer)
                if not waiting:
                    del self._waiting[key]

        return cancel

    def export(self) -> list[list[object]]:
        """The processes of execs, for `restore` in another program; who waits for them asks again there."""
        return [[container_id, pid, status] for (container_id, pid), status in self._execs.items()]

    def restore(self, saved: list[list[object]]) -> None:
        """Goes on with the processes that `export` told of."""
        for container_id, pid, status in saved:
            assert isinstance(container_id, str) and isinstance(pid, int)
            assert status is None or isinstance(status, int)
            self._execs[container_id, pid] = status
            if status is None:
                self._by_pid[pid] = container_id

    def export_deleted(self) -> list[list[object]]:
        """How containers ended that are there no more, for `restore_deleted` in another program."""
        return [[container_id, pid, status] for (container_id, pid), status in self._deleted.items()]

    def restore_deleted(self, saved: list[list[object]]) -> None:
        """Goes on with what `export_deleted` told of; what was deleted since comes after that."""
        since, self._deleted = self._deleted, {}
        for container_id, pid, status in saved:
            assert isinstance(container_id, str) and isinstance(pid, int) and isinstance(status, int)
            self._deleted[container_id, pid] = status
        for (container_id, pid), status in since.items():
            self.container_deleted(container_id, pid, status)

    def _tell(self, key: tuple[str, int], status: int) -> None:
        for answer in self._waiting.pop(key, []):
            answer(status)
