"""BPF: the wrappers of c/kernel/bpf.c, with a program on a cgroup of the test's own."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import is_cloexec, open_fds

pytestmark = pytest.mark.needs_root


def instructions(value: int) -> bytes:
    """`r0 = value; exit`."""
    return struct.pack("<BBhi", 0xB7, 0, 0, value) + struct.pack("<BBhi", 0x95, 0, 0, 0)


def load(value: int = 1) -> int:
    return _kernel.bpf_prog_load(k.BPF_PROG_TYPE_CGROUP_DEVICE, instructions(value), name="ctrtest")


@pytest.fixture
def cgroup() -> Iterator[int]:
    """An fd of a new cgroup of the v2 hierarchy, with or without controllers."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if "cgroup2" in fields[fields.index("-") :]:
            path = Path(fields[4]) / f"ctrtest-bpf-{os.getpid()}"
            break
    else:
        pytest.skip("needs cgroup v2 mounted")
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    path.rmdir()


def test_a_program_is_attached_found_replaced_and_detached(cgroup: int) -> None:
    first, second = load(1), load(0)
    try:
        assert is_cloexec(first)
        _kernel.bpf_prog_attach(cgroup, first, k.BPF_CGROUP_DEVICE, k.BPF_F_ALLOW_MULTI)
        (first_id,) = _kernel.bpf_prog_query(cgroup, k.BPF_CGROUP_DEVICE)
        again = _kernel.bpf_prog_get_fd_by_id(first_id)
        assert is_cloexec(again)
        flags = k.BPF_F_ALLOW_MULTI | k.BPF_F_REPLACE
        _kernel.bpf_prog_attach(cgroup, second, k.BPF_CGROUP_DEVICE, flags, replace_fd=again)
        os.close(again)
        (second_id,) = _kernel.bpf_prog_query(cgroup, k.BPF_CGROUP_DEVICE)
        assert second_id != first_id
        _kernel.bpf_prog_detach(cgroup, second, k.BPF_CGROUP_DEVICE)
        assert _kernel.bpf_prog_query(cgroup, k.BPF_CGROUP_DEVICE) == []
    finally:
        os.close(first)
        os.close(second)


def test_a_refused_program_carries_the_words_of_the_verifier() -> None:
    before = open_fds()
    # exit without a value in r0
    with pytest.raises(OSError, match=r"R0 !read_ok") as raised:
        _kernel.bpf_prog_load(k.BPF_PROG_TYPE_CGROUP_DEVICE, instructions(0)[8:])

    assert raised.value.syscall == "bpf"  # type: ignore[attr-defined]
    assert open_fds() == before


def test_half_an_instruction_and_a_long_name_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        _kernel.bpf_prog_load(k.BPF_PROG_TYPE_CGROUP_DEVICE, b"1234567")
    with pytest.raises(ValueError, match="longer than 15"):
        _kernel.bpf_prog_load(k.BPF_PROG_TYPE_CGROUP_DEVICE, instructions(0), name="x" * 16)


def test_an_unknown_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        _kernel.bpf_prog_get_fd_by_id(0xFFFFFFF0)

    assert raised.value.syscall == "bpf"  # type: ignore[attr-defined]
