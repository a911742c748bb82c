"""Statistics read from trees of cgroup files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files, stats, stats_v1, stats_v2

Tree = Callable[[dict[str, str]], str]

NO_CPUSET = {
    "cpu_exclusive": 0,
    "mem_hardwall": 0,
    "mem_exclusive": 0,
    "memory_migrate": 0,
    "memory_spread_page": 0,
    "memory_spread_slab": 0,
    "memory_pressure": 0,
    "sched_load_balance": 0,
    "sched_relax_domain_level": 0,
}
PRESSURE = "some avg10=1.50 avg60=0.00 avg300=0.07 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
STALLS = {
    "some": {"avg10": 1.5, "avg60": 0, "avg300": 0.07, "total": 1234},
    "full": {"avg10": 0, "avg60": 0, "avg300": 0, "total": 5},
}


@pytest.fixture
def tree(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Makes a directory of files that passes for a cgroup."""
    monkeypatch.setattr(files, "verify", lambda fd, path: None)
    monkeypatch.setattr(stats, "hugepage_sizes", lambda: ["2MB", "1GB"])
    count = 0

    def make(contents: dict[str, str]) -> str:
        nonlocal count
        count += 1
        made = directory / f"cgroup{count}"
        made.mkdir()
        for name, text in contents.items():
            (made / name).write_text(text)
        return str(made)

    return make


V2 = {
    "cpu.stat": "usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 9\nnr_throttled 3\nthrottled_usec 77\n"
    "nr_bursts 0\nburst_usec 0\n",
    "cpu.pressure": PRESSURE,
    "cpuset.cpus.effective": "0-2,7\n",
    "cpuset.mems.effective": "0\n",
    "memory.stat": "anon 4096\nfile 8192\nkernel 100\n",
    "memory.current": "20000\n",
    "memory.max": "max\n",
    "memory.peak": "30000\n",
    "memory.swap.current": "1000\n",
    "memory.swap.max": "max\n",
    "memory.swap.peak": "2000\n",
    "memory.pressure": PRESSURE,
    "pids.current": "3\n",
    "pids.max": "64\n",
    "io.stat": "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n8:16\n",
    "io.pressure": PRESSURE,
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.rsvd.current": "4194304\n",
    "hugetlb.2MB.events": "max 6\n",
    "hugetlb.1GB.current": "0\n",
    "rdma.current": "mlx4_0 hca_handle=2 hca_object=0\n",
    "rdma.max": "mlx4_0 hca_handle=max hca_object=2000\n",
}


def test_everything_of_v2_in_the_order_of_runc(tree: Tree):
    unlimited = 2**64 - 1
    expected = {
        "cpu": {
            "usage": {"total": 300000, "kernel": 100000, "user": 200000},
            "throttling": {"periods": 9, "throttledPeriods": 3, "throttledTime": 77000},
            "psi": STALLS,
        },
        "cpuset": {"cpus": [0, 1, 2, 7], "cpu_exclusive": 0, "mems": [0], **NO_CPUSET},
        "memory": {
            "cache": 8192,
            "usage": {"limit": unlimited, "usage": 20000, "max": 30000, "failcnt": 0},
            "swap": {"limit": unlimited, "usage": 21000, "max": 2000, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": {"anon": 4096, "file": 8192, "kernel": 100},
            "psi": STALLS,
        },
        "pids": {"current": 3, "limit": 64},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": 254, "op": "Read", "value": 4096},
                {"major": 254, "op": "Write"},
            ],
            "ioServicedRecursive": [{"major": 254, "op": "Read", "value": 1}, {"major": 254, "op": "Write"}],
            "psi": STALLS,
        },
        "hugetlb": {"1GB": {"failcnt": 0}, "2MB": {"usage": 4194304, "failcnt": 6}},
        "rdma": {
            "rdma_limit": [{"device": "mlx4_0", "hca_handles": 2**32 - 1, "hca_objects": 2000}],
            "rdma_current": [{"device": "mlx4_0", "hca_handles": 2}],
        },
    }
    assert json.dumps(stats.read({"": tree(V2)})) == json.dumps(expected)


def test_a_limit_on_swap_is_told_together_with_that_on_memory(tree: Tree):
    found = stats.read({"": tree({**V2, "memory.max": "50000\n", "memory.swap.max": "7000\n"})})
    assert found["memory"]["usage"]["limit"] == 50000
    assert found["memory"]["swap"]["limit"] == 57000


def test_v2_without_swap_has_zeros_for_it(tree: Tree):
    found = stats.read({"": tree({name: text for name, text in V2.items() if "swap" not in name})})
    assert found["memory"]["swap"] == {"limit": 0, "failcnt": 0}


def test_v2_without_controllers_still_has_cpu_time_and_processes(tree: Tree):
    found = stats.read({"": tree({"cpu.stat": "usage_usec 1\nuser_usec 1\nsystem_usec 0\n", "cgroup.procs": "1\n2\n"})})
    assert found == {
        "cpu": {"usage": {"total": 1000, "kernel": 0, "user": 1000}, "throttling": {}},
        "cpuset": NO_CPUSET,
        "memory": {kind: {"limit": 0, "failcnt": 0} for kind in ("usage", "swap", "kernel", "kernelTCP")},
        "pids": {"current": 2},
        "blkio": {},
        "hugetlb": {},
    }


@pytest.mark.parametrize("paths", [{}, {"": "/no/such/cgroup"}, {"memory": "/no/such/cgroup"}], ids=str)
def test_a_cgroup_that_is_gone_has_zeros_in_the_same_shape(paths: dict[str, str]):
    found = stats.read(paths)
    assert list(found) == ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"]
    assert found["cpu"] == {"usage": {"kernel": 0, "user": 0}, "throttling": {}}
    assert found["cpuset"] == NO_CPUSET
    assert found["memory"]["usage"] == {"limit": 0, "failcnt": 0}


def test_cpu_pressure_of_old_kernels_has_no_full_stalls():
    found = stats_v2.pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0")
    assert found["full"] == {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}


def test_whole_numbers_have_no_point():
    text = json.dumps(stats_v2.pressure("some avg10=100.00 avg60=0.10 avg300=0.00 total=1"))
    assert text.startswith('{"some": {"avg10": 100, "avg60": 0.1, "avg300": 0, "total": 1}')


V1: dict[str, dict[str, str]] = {
    "cpu": {"cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 99\n"},
    "cpuacct": {
        "cpuacct.stat": "user 3\nsystem 4\n",
        "cpuacct.usage": "123\n",
        "cpuacct.usage_percpu": "100 23 \n",
        "cpuacct.usage_all": "cpu user system\n0 60 40\n1 20 3\n",
    },
    "cpuset": {
        "cpuset.cpus": "0-1\n",
        "cpuset.mems": "\n",
        "cpuset.sched_load_balance": "1\n",
        "cpuset.sched_relax_domain_level": "-1\n",
    },
    "memory": {
        "memory.stat": "rss 7\ncache 42\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.usage_in_bytes": "50\n",
        "memory.max_usage_in_bytes": "60\n",
        "memory.failcnt": "1\n",
    },
    "pids": {"pids.current": "1\n", "pids.max": "max\n"},
    "blkio": {
        "blkio.bfq.io_serviced_recursive": "Total 0\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Total 1\nTotal 1\n",
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 512\n8:0 Total 512\nTotal 512\n",
    },
    "hugetlb": {
        "hugetlb.2MB.usage_in_bytes": "1\n",
        "hugetlb.2MB.rsvd.usage_in_bytes": "2\n",
        "hugetlb.2MB.rsvd.max_usage_in_bytes": "3\n",
        "hugetlb.2MB.rsvd.failcnt": "4\n",
        "hugetlb.1GB.usage_in_bytes": "0\n",
    },
}


def v1_paths(tree: Tree, **changed: dict[str, str]) -> dict[str, str]:
    return {controller: tree(contents) for controller, contents in {**V1, **changed}.items()}


def test_everything_of_v1_in_the_order_of_runc(tree: Tree):
    nothing = {"limit": 0, "failcnt": 0}
    expected: dict[str, Any] = {
        "cpu": {
            "usage": {
                "total": 123,
                "percpu": [100, 23],
                "percpu_kernel": [40, 3],
                "percpu_user": [60, 20],
                "kernel": 40000000,
                "user": 30000000,
            },
            "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 99},
        },
        "cpuset": {"cpus": [0, 1], **NO_CPUSET, "sched_load_balance": 1, "sched_relax_domain_level": -1},
        "memory": {
            "cache": 42,
            "usage": {"limit": 9223372036854771712, "usage": 50, "max": 60, "failcnt": 1},
            "swap": nothing,
            "kernel": nothing,
            "kernelTCP": nothing,
            "raw": {"cache": 42, "rss": 7},
        },
        "pids": {"current": 1},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": 8, "op": "Read", "value": 512},
                {"major": 8, "op": "Total", "value": 512},
            ],
            "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Total", "value": 1}],
        },
        "hugetlb": {"1GB": {"failcnt": 0}, "2MB": {"usage": 2, "max": 3, "failcnt": 4}},
    }
    assert json.dumps(stats.read(v1_paths(tree))) == json.dumps(expected)


def test_the_scheduler_that_counts_is_asked(tree: Tree):
    names = ["sectors", "io_service_time", "io_wait_time", "io_merged", "io_queued", "time"]
    contents = {f"blkio.bfq.{name}_recursive": f"8:16 Read {index}\n" for index, name in enumerate(names)}
    contents["blkio.bfq.sectors_recursive"] = "8:16 12\n"
    contents["blkio.bfq.io_serviced_recursive"] = contents["blkio.bfq.io_service_bytes_recursive"] = "8:16 Read 9\n"
    found = stats.read(v1_paths(tree, blkio={**V1["blkio"], **contents}))["blkio"]
    assert list(found) == list(stats.BLOCK_TABLES)
    assert found["sectorsRecursive"] == [{"major": 8, "minor": 16, "value": 12}]
    assert found["ioServicedRecursive"] == [{"major": 8, "minor": 16, "op": "Read", "value": 9}]


def test_huge_pages_of_a_hybrid_host_are_in_its_v2_hierarchy(tree: Tree):
    paths = v1_paths(tree)
    del paths["hugetlb"]
    paths[""] = tree({"hugetlb.2MB.current": "5\n"})
    assert stats.read(paths)["hugetlb"] == {"2MB": {"usage": 5, "failcnt": 0}}


def test_a_file_with_something_else_is_an_error_that_names_it(tree: Tree):
    with pytest.raises(CgroupError, match=r'expected a number, got "odd" in .*/pids.current'):
        stats.read(v1_paths(tree, pids={"pids.current": "odd\n"}))


def test_a_directory_that_is_no_cgroup_is_refused(directory: Path):
    with pytest.raises(CgroupError, match="not a cgroup"):
        stats.read({"": str(directory)})


def test_a_counter_below_zero_is_zero(tree: Tree):
    assert stats_v1.read(v1_paths(tree, pids={"pids.current": "-1\n"}))["pids"] == {}


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), ("1, 3", [1, 3]), ("x,2-y", [])]
)
def test_lists_of_cpus_are_told_in_full(text: str, numbers: list[int]):
    assert stats.numbers_of(text) == numbers


def test_page_sizes_have_the_names_of_cgroup_files(directory: Path):
    for size in ("1048576kB", "64kB", "2048kB", "x"):
        (directory / f"hugepages-{size}").mkdir()
    assert stats.hugepage_sizes(str(directory)) == ["64KB", "2MB", "1GB"]
    assert stats.hugepage_sizes(str(directory / "none")) == []
