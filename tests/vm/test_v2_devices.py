"""Device rules as the kernel's eBPF program of the container's cgroup."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import BPF_CGROUP_DEVICE
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime
from tests.vm.conftest import Driver, edit

pytestmark = pytest.mark.usefixtures("no_leaks")

KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
# for writing: reading takes CAP_SYSLOG on some hosts
SCRIPT = "mknod /dev/k c 1 11 && (: >>/dev/k) && echo allowed; echo x >/dev/null && echo null"


def with_mknod(config: dict[str, Any]) -> None:
    for names in config["process"]["capabilities"].values():
        names.append("CAP_MKNOD")


@pytest.mark.vm_short
@pytest.mark.parametrize(
    ("rules", "expected"), [([], ["null"]), ([KMSG], ["allowed", "null"])], ids=["denied", "allowed"]
)
def test_device_is_there_only_for_those_it_is_allowed_to(
    driver: Driver, limited: Callable[..., Path], container_id: str, rules: list[Any], expected: list[str]
):
    made = limited(["sh", "-c", SCRIPT], devices=[{"allow": False, "access": "rwm"}, *rules])
    edit(made, with_mknod)
    result = driver("run", "-b", made, container_id)
    assert result.lines == expected
    assert ("Operation not permitted" in result.err) == (not rules)


def test_device_rules_hold_for_exec(driver: Driver, running: Callable[..., Path], container_id: str):
    running(devices=[{"allow": False, "access": "rwm"}])
    result = driver("exec", "--cap", "CAP_MKNOD", container_id, "sh", "-c", SCRIPT)
    assert "Operation not permitted" in result.err
    assert result.lines == ["null"]
    driver("delete", "--force", container_id).ok()


def test_container_with_all_devices_has_them(driver: Driver, limited: Callable[..., Path], container_id: str):
    made = limited(["sh", "-c", SCRIPT], devices=[{"allow": True, "access": "rwm"}])
    edit(made, with_mknod)
    assert driver("run", "-b", made, container_id).lines == ["allowed", "null"]


def test_cgroup_has_one_device_program(ctrun: Runtime, bundle: Bundles, container_id: str):
    def path(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = f"/{container_id}"

    ctrun("run", "-d", "-b", bundle(path, args=["sleep", "1000"]), container_id, stdin="").ok()
    fd = os.open(f"/sys/fs/cgroup/{container_id}", os.O_RDONLY | os.O_CLOEXEC)
    programs = _kernel.bpf_prog_query(fd, BPF_CGROUP_DEVICE)
    os.close(fd)
    assert len(programs) == 1
    ctrun("delete", "--force", container_id).ok()
