"""ctr_common/spec/capabilities.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_common.spec import capabilities


def test_a_mask_has_the_bits_of_its_names() -> None:
    assert capabilities.mask(["CAP_CHOWN", "CAP_SETFCAP", "CAP_SETFCAP"]) == 1 | 1 << 31


def test_all_names_make_the_full_set_of_this_kernel() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert capabilities.last() == last
    if last < len(capabilities.NAMES):
        assert capabilities.mask(capabilities.NAMES) == (1 << last + 1) - 1


def test_unknown_names_are_left_out_and_told_once() -> None:
    names = ["CAP_NEW", "CAP_CHOWN", "CAP_NEW", "chown"]
    assert capabilities.mask(names) == 1
    assert capabilities.unknown(names) == ["CAP_NEW", "chown"]


def test_a_capability_of_a_newer_kernel_counts_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_last", 37)
    assert capabilities.mask(["CAP_BPF", "CAP_AUDIT_READ"]) == 1 << 37
    assert capabilities.unknown(["CAP_BPF", "CAP_AUDIT_READ"]) == ["CAP_BPF"]
