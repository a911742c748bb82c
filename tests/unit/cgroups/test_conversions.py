from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import conversions


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 0), (1, 1), (2, 1), (3, 2), (100, 17), (512, 59), (1024, 100), (2048, 174), (262144, 10000), (999999, 10000)],
)
def test_shares_become_a_weight_that_keeps_the_default(shares, weight):
    assert conversions.cpu_weight(shares) == weight


def test_more_shares_never_make_less_weight():
    weights = [conversions.cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(("blkio", "weight"), [(0, 0), (10, 1), (500, 4950), (1000, 10000)])
def test_blkio_weight_becomes_an_io_weight(blkio, weight):
    assert conversions.io_weight(blkio) == weight


@pytest.mark.parametrize(
    ("both", "memory", "swap"),
    [
        (0, 0, None),
        (0, 100, None),
        (0, -1, -1),
        (-1, 0, -1),
        (-1, 100, -1),
        (-1, -1, -1),
        (300, 100, 200),
        (100, 100, 0),
    ],
)
def test_swap_limit_is_what_is_left_of_both(both, memory, swap):
    assert conversions.swap_limit(both, memory) == swap


@pytest.mark.parametrize(
    ("both", "memory", "message"),
    [
        (300, 0, "unable to set swap limit without memory limit"),
        (300, -1, "unable to set swap limit without memory limit"),
        (300, -2, "invalid memory value: -2"),
        (100, 300, "memory+swap limit should be >= memory limit"),
    ],
)
def test_swap_limit_that_does_not_fit_is_an_error(both, memory, message):
    with pytest.raises(CgroupError) as caught:
        conversions.swap_limit(both, memory)
    assert caught.value.message == message
    assert caught.value.json_path.startswith(".linux.resources.memory.")
