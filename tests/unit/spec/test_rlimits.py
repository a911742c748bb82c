"""ctr_common/spec/rlimits.py."""

from __future__ import annotations

import resource

import pytest

from ctr_common.spec import rlimits


def test_the_numbers_are_those_of_the_c_library() -> None:
    for name, number in rlimits.NUMBERS.items():
        # Python has no name for RLIMIT_LOCKS, which no kernel has obeyed since 2.4.
        assert getattr(resource, name, number) == number


def test_every_number_stands_once() -> None:
    assert sorted(rlimits.NUMBERS.values()) == list(range(16))


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        rlimits.number("RLIMIT_X")
