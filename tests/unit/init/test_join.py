from __future__ import annotations

import pytest

from ctr_init import join


@pytest.mark.parametrize(("before", "calls"), [(0, []), (1, [(4, 1)]), (2, [])])
def test_the_dumpable_flag_of_a_program_that_changed_its_ids_is_left(
    monkeypatch: pytest.MonkeyPatch, before: int, calls: list[tuple[int, int]]
) -> None:
    """prctl(2) refuses to set 2, which setresuid(2) leaves where fs.suid_dumpable is 2, as systemd has it."""
    made: list[tuple[int, int]] = []

    class Kernel:
        @staticmethod
        def prctl(option: int, value: int) -> None:
            made.append((option, value))

    monkeypatch.setattr(join, "_kernel", Kernel)
    join.restore_dumpable(before)
    assert made == calls
