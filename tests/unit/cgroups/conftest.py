"""A cgroup directory in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.files import Directory


class FakeDirectory(Directory):
    """Files of a cgroup in a dict; remembers what was written, in order."""

    def __init__(self, **contents: str) -> None:
        super().__init__("/fake", "fake")
        self.contents = {name.replace("__", "."): value for name, value in contents.items()}
        self.writes: list[tuple[str, str]] = []
        self.refusals: dict[str, list[int]] = {}
        self.limits: dict[str, range] = {}

    def refuse(self, name: str, *errnos: int) -> None:
        """The next writes to a file fail with these; 0 lets one pass."""
        self.refusals[name] = list(errnos)

    def fileno(self) -> int:
        return 0

    def has(self, name: str) -> bool:
        return name in self.contents

    def read(self, name: str, json_path: str = "") -> str:
        if name not in self.contents:
            raise CgroupError("read", errno=errno.ENOENT, path=f"/fake/{name}")
        return self.contents[name]

    def write_each(self, name: str, values: Iterable[int | str], json_path: str = "") -> None:
        for value in values:
            refusals = self.refusals.get(name)
            number = refusals.pop(0) if refusals else 0
            if number:
                raise CgroupError("write", errno=number, path=f"/fake/{name}", json_path=json_path)
            self.writes.append((name, str(value)))
            kept = int(value) if str(value).lstrip("-").isdigit() else None
            if kept is not None and name in self.limits:
                kept = min(max(kept, self.limits[name][0]), self.limits[name][-1])
            self.contents[name] = str(value if kept is None else kept)


@pytest.fixture
def fake() -> type[FakeDirectory]:
    """The class, for tests that give it contents (`cpu__max` stands for cpu.max)."""
    return FakeDirectory


@pytest.fixture
def cgroup() -> FakeDirectory:
    """An empty one."""
    return FakeDirectory()
