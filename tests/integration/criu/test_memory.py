"""Memory in several steps: pre-dumps, page servers, pages that are fetched when they are touched.

Soft-dirty tracking is not in every kernel: what needs it runs in the guest of tests/vm.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.criu.conftest import LIMIT, Restorable
from tests.support.runtime import ROOT
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]
covers = pytest.mark.covers
needs_tracking = pytest.mark.needs_criu_feature("mem_dirty_track")
# On Linux 6.18 a lazy dump of CRIU 4.1.1 ends in "splice: Bad file descriptor" once a page is asked for, whoever runs
# it (runc's hangs, too); the guest's kernel, which has soft-dirty tracking as well, is one that it works with.
needs_uffd = pytest.mark.needs_criu_feature("uffd", "mem_dirty_track")

# Some megabytes of memory that stay as they are, in a shell's variable, and a counter beside them.
LARGE = (
    "x=0123456789abcdef; while [ ${#x} -lt 2000000 ]; do x=$x$x; done;"
    " i=0; while :; do i=$((i+1)); echo $i ${#x} > /dev/shm/new;"
    " mv /dev/shm/new /dev/shm/count; sleep 0.05; done"
)


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def progress(box: Restorable) -> int:
    """How far it has counted; its memory is as it was."""
    words = box.ctrun("exec", box.container_id, "cat", "/dev/shm/count").out.split()
    if len(words) != 2:
        return 0
    assert int(words[1]) >= 1000000
    return int(words[0])


@pytest.fixture
def large(box: Restorable) -> Restorable:
    """A container with memory."""
    box.run(LARGE)
    until("it counts", lambda: progress(box) > 1)
    return box


@needs_tracking
@pytest.mark.needs_command("musl-gcc")
@covers("checkpoint --pre-dump", "checkpoint --parent-path")
def test_a_chain_of_pre_dumps_leaves_little_for_the_last(holding: Callable[..., Restorable]) -> None:
    large = holding("memory", "4000000")
    top = large.images
    top.mkdir()
    pid = large.pid
    large.images = top / "one"
    large.checkpoint("--pre-dump").ok()
    assert (large.status, large.pid) == ("running", pid)
    large.images = top / "two"
    large.checkpoint("--pre-dump", "--parent-path", "../one").ok()
    large.images = top / "three"
    large.checkpoint("--parent-path", "../two").ok()
    assert os.readlink(top / "three/parent") == "../two"

    def pages(name: str) -> int:
        return sum(file.stat().st_size for file in (top / name).glob("pages-*.img"))

    assert pages("one") > 4000000
    assert pages("three") < pages("one") / 4
    large.restore().ok()
    assert large.status == "running"
    large.end()


def test_a_kernel_without_soft_dirty_tracking_is_told_with_a_hint(box: Restorable) -> None:
    from tests.support import criu

    if criu.has_feature("mem_dirty_track"):
        pytest.skip("needs a kernel without soft-dirty tracking")
    box.count().counts()
    result = box.checkpoint("--pre-dump")
    assert result.code == 1
    assert "criu has not the feature mem_track, which --pre-dump needs" in result.err
    found = box.ctrun(*box.criu, "checkpoint", "--check", "--pre-dump", box.container_id)
    assert found.out == "the kernel has no soft-dirty page tracking; leave --pre-dump out\n"
    box.counts()
    box.end()


@covers("checkpoint --page-server")
def test_memory_is_sent_to_a_page_server(large: Restorable) -> None:
    port = free_port()
    large.images.mkdir()
    argv = [large.criu[1], "page-server", "--images-dir", large.images, "--address", "127.0.0.1", "--port", str(port)]
    log = ["--log-file", large.directory / "server.log"]
    with subprocess.Popen([*argv, *log], stdin=subprocess.DEVNULL) as server:
        until("the server listens", lambda: f":{port:04X}" in Path("/proc/net/tcp").read_text())
        large.images, remote = large.directory / "local", large.images
        large.checkpoint("--page-server", f"127.0.0.1:{port}").ok()
        assert server.wait(LIMIT) == 0
    assert not list(large.images.glob("pages-*.img"))
    assert list(remote.glob("pages-*.img"))
    for image in remote.iterdir():
        image.rename(large.images / image.name)
    large.restore().ok()
    before = progress(large)
    until("it goes on", lambda: progress(large) > before)
    large.end()


@needs_uffd
@covers("checkpoint --lazy-pages", "checkpoint --status-fd", "restore --lazy-pages")
def test_pages_are_fetched_when_they_are_touched(large: Restorable, new_container_id: Callable[[], str]) -> None:
    port = free_port()
    reading, writing = os.pipe()
    base = [large.ctrun.path, *large.ctrun.globals, *large.criu, "checkpoint", "--image-path", large.images]
    flags = ["--lazy-pages", "--page-server", f"127.0.0.1:{port}", "--status-fd", str(writing)]
    bridge = [ROOT / "bin/ctr-criu-bridge", "lazy-pages", *large.criu, "--images-dir", large.images]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        [*base, "--work-path", large.directory / "source", *flags, large.container_id], pass_fds=[writing], **quiet
    ) as source:
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], LIMIT)
        assert ready
        assert os.read(reading, 1) == b"\0"
        os.close(reading)
        large.work.mkdir()
        serve = ["--work-dir", large.work, "--page-server", f"127.0.0.1:{port}"]
        with subprocess.Popen([*bridge, *serve], **quiet) as pages:
            until("the daemon listens", (large.work / "lazy-pages.socket").exists)
            # Until the last page has gone the source holds its container, id and cgroups.
            first, large.container_id = large.container_id, new_container_id()
            large.restore("--lazy-pages").ok()
            assert pages.wait(LIMIT) == 0
        assert source.wait(LIMIT) == 0
    assert large.ctrun.status(first) == ""
    before = progress(large)
    until("it goes on", lambda: progress(large) > before)
    large.end()
