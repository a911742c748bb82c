"""What is held against the console of a guest that the supervisor is the init of."""

from __future__ import annotations

import pytest

from tests.vm.guest import as_init

CONSOLE = """\
driver: process 1 is ctr-supervisor
driver: mounted /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup
driver: no zombies
driver: web running, limited to 8
driver: stubborn running, made by "pid":1,
container: obeyed
driver: event {"event":"exited","id":"web","time":1.5,"pid":299,"status":3}
driver: event {"event":"exited","id":"stubborn","time":1.5,"pid":314,"status":137}
[  127.870551] reboot: Power down
"""


def test_a_console_that_shows_everything_passes() -> None:
    assert as_init.failed(CONSOLE) == []


@pytest.mark.parametrize("number", range(len(CONSOLE.splitlines())))
def test_every_line_counts(number: int) -> None:
    lines = CONSOLE.splitlines(keepends=True)
    assert as_init.failed("".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize(
    ("wrong", "right"), [("/dev/shm /run", "/run"), ("driver: no zombies", "Kernel panic"), ('"status":3', '"x":3')]
)
def test_what_is_wrong_is_told(wrong: str, right: str) -> None:
    assert as_init.failed(CONSOLE.replace(wrong, right))


def test_an_end_before_the_containers_is_not_in_order() -> None:
    lines = CONSOLE.splitlines(keepends=True)
    assert as_init.failed("".join([lines[-1], *lines[:-1]]))
