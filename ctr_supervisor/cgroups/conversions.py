"""From the numbers of cgroup v1, which the specification speaks, to those of v2."""

from ctr_common.errors import CgroupError

SHARES_MIN, SHARES_MAX = 2, 262144
CPU_WEIGHT_MAX = 10000


def cpu_weight(shares: int) -> int:
    """The v2 cpu.weight (1 to 10000) for v1 shares (2 to 262144).

    The curve goes through (2, 1), (1024, 100), (262144, 10000), so that the default stays the default. It is the one
    of current runtimes; older ones, runc 1.1 among them, had a straight line, which made 39 of the default 1024.

    Args:
        shares: 0 stands for "not given".

    Returns:
        The weight, or 0 for "not given".
    """
    if shares == 0:
        return 0
    if shares <= SHARES_MIN:
        return 1
    if shares >= SHARES_MAX:
        return CPU_WEIGHT_MAX
    from math import ceil, log2

    logarithm = log2(shares)
    exponent = (logarithm * logarithm + 125 * logarithm) / 612 - 7 / 34
    # The exact value for the default is a whole number that floating point may miss from above.
    return ceil(round(10**exponent, 9))


def io_weight(weight: int) -> int:
    """The v2 io.weight (1 to 10000) for a blkio weight (10 to 1000), on a straight line.

    Args:
        weight: 0 stands for "not given".

    Returns:
        The weight, or 0 for "not given".
    """
    if weight == 0:
        return 0
    return 1 + (weight - 10) * 9999 // 990


def swap_limit(memory_and_swap: int, memory: int) -> "int | None":
    """The v2 limit on swap alone for the v1 limit on memory and swap.

    Args:
        memory_and_swap: bytes; -1 unlimited, 0 not given.
        memory: bytes; -1 unlimited, 0 not given.

    Returns:
        bytes; -1 for unlimited; None for "not given".

    Raises:
        CgroupError: the two do not fit together.
    """
    where = ".linux.resources.memory.swap"
    # As on v1: no limit on memory, and none on both.
    if memory_and_swap == -1 or (memory == -1 and memory_and_swap == 0):
        return -1
    if memory_and_swap == 0:
        return None
    if memory in (0, -1):
        raise CgroupError("unable to set swap limit without memory limit", json_path=where)
    if memory < 0:
        raise CgroupError(f"invalid memory value: {memory}", json_path=".linux.resources.memory.limit")
    if memory_and_swap < memory:
        raise CgroupError("memory+swap limit should be >= memory limit", json_path=where)
    return memory_and_swap - memory
