"""CRIU that is missing, too old, or dies: a clear error, and the container as it was."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.criu.conftest import LIMIT, Restorable
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]
covers = pytest.mark.covers


def fake(directory: Path, script: str) -> list[str | Path]:
    """The flags for a CRIU that is a shell script."""
    program = directory / "fake-criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return ["--criu", program]


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_a_missing_criu_is_named(box: Restorable, verb: str) -> None:
    box.count().counts()
    if verb == "restore":
        box.checkpoint().ok()
    box.criu = ["--criu", "/no/such/criu"]
    result = getattr(box, verb)()
    assert result.code == 1
    assert "criu: /no/such/criu: executable file not found" in result.err
    if verb == "checkpoint":
        box.counts()
        box.end()
    else:
        assert box.status == ""


def test_without_criu_on_path_it_says_where_it_looked(box: Restorable) -> None:
    box.count()
    result = box.ctrun("checkpoint", "--image-path", box.images, box.container_id, env={"PATH": "/nowhere"})
    assert "criu: criu: executable file not found in $PATH" in result.err
    assert box.status == "running"
    box.end()


def test_a_criu_that_is_too_old_is_told_by_its_version(box: Restorable) -> None:
    box.count().counts()
    # Without the RPC for it, as it came with 3.0: what -V prints is read.
    box.criu = list(map(str, fake(box.directory, 'test "$1" = -V && echo Version: 1.5')))
    result = box.checkpoint()
    assert result.code == 1
    assert "criu 1.5 is too old: checkpoint and restore needs 1.5.2 or newer" in result.err
    box.counts()
    box.end()


def test_a_criu_that_can_not_start_here_is_told_with_its_own_words(box: Restorable) -> None:
    box.count().counts()
    script = 'test "$1" = -V && echo Version: 3.17.1 || { echo "Error: vdso: no such thing" >&2; exit 1; }'
    box.criu = list(map(str, fake(box.directory, script)))
    result = box.checkpoint()
    assert result.code == 1
    assert "criu ended without an answer, exit status 1: Error: vdso: no such thing" in result.err
    box.counts()
    box.end()


def killer(box: Restorable, when: str) -> list[str | Path]:
    """The flags for a CRIU that is killed when its log has these words."""
    log = box.work / "dump.log"
    script = (
        f'if [ "$1" = swrk ]; then (while ! grep -qs "{when}" {log}; do :; done; kill -9 $$) & fi\n'
        f'exec {shlex.quote(box.criu[1])} "$@"'
    )
    return fake(box.directory, script)


def test_a_criu_that_is_killed_while_it_dumps_leaves_the_container_running(box: Restorable) -> None:
    box.count().counts()
    pid = box.pid
    flags = killer(box, "Running network-lock scripts")
    box.criu, real = list(map(str, flags)), box.criu
    result = box.checkpoint()
    assert result.code == 1
    assert "criu was killed by signal 9" in result.err
    assert (box.status, box.pid) == ("running", pid)
    box.counts()
    box.criu = real
    (box.work / "dump.log").unlink()
    box.checkpoint().ok()
    box.restore().ok()
    box.counts()
    box.end()


@pytest.mark.needs_command("strace")
@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_a_criu_that_is_killed_leaves_none_of_its_mounts(box: Restorable, verb: str) -> None:
    box.count().counts()
    real = box.criu
    if verb == "restore":
        box.checkpoint().ok()
    # With what it knows of the kernel from before, it would not mount something to find out.
    Path("/run/criu.kdat").unlink(missing_ok=True)
    trace = box.directory / "trace"
    program = shlex.quote(real[1])
    kill = f"strace -o {trace} -e trace=umount2 -e inject=umount2:signal=KILL:when=1 {program}"
    script = f'test "$1" = swrk && exec {kill} "$@"; exec {program} "$@"'
    box.criu = list(map(str, fake(box.directory, script)))
    result = getattr(box, verb)()
    assert result.code == 1
    assert "criu was killed by signal 9" in result.err
    mounted = re.search(r'^umount2\("([^"]+)"', trace.read_text(), re.MULTILINE)
    assert mounted is not None
    assert mounted[1] not in Path("/proc/self/mountinfo").read_text()
    Path(mounted[1]).rmdir()
    if verb == "checkpoint":
        box.counts()
        box.end()
    else:
        assert box.status == ""


def test_a_runtime_that_is_killed_while_criu_dumps_leaves_a_container_that_can_be_used(
    box: Restorable, directory: Path
) -> None:
    box.count().counts()
    script = f'test "$1" = swrk && : > {directory}/started\nexec {shlex.quote(box.criu[1])} "$@"'
    flags = fake(box.directory, script)
    argv = [box.ctrun.path, *box.ctrun.globals, *flags, "checkpoint", "--image-path", box.images, box.container_id]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until("criu starts", (directory / "started").exists)
        process.kill()
    # The bridge finds out with the next notification that nobody waits for it, and CRIU undoes what it did.
    until("it is thawed", lambda: box.status == "running")
    box.counts()
    box.checkpoint().ok()
    box.restore().ok()
    box.end()


def test_ctrl_c_does_not_tear_criu_apart(box: Restorable) -> None:
    box.count().counts()
    argv = [box.ctrun.path, *box.ctrun.globals, *box.criu, "checkpoint", "--image-path", box.images, box.container_id]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        until("criu works", (box.images / "descriptors.json").exists)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(LIMIT)
    until("it runs", lambda: box.status == "running")
    box.counts()
    box.end()


def test_a_restore_that_fails_leaves_nothing(box: Restorable) -> None:
    box.count()
    box.checkpoint().ok()
    core = next(box.images.glob("core-*.img"))
    core.write_bytes(core.read_bytes()[:20])
    result = box.restore()
    assert result.code == 1
    assert "criu failed: type RESTORE" in result.err
    assert box.status == ""
    assert not (box.ctrun.state_root / box.container_id).exists()


def test_a_folder_without_a_checkpoint_is_refused(box: Restorable) -> None:
    box.count().end()
    box.images.mkdir()
    result = box.restore()
    assert result.code == 1
    assert "the image path has no descriptors.json" in result.err
    box.images = box.directory / "nowhere"
    result = box.restore()
    assert f"cannot open the image path {box.images}: no such file or directory" in result.err
    assert not box.images.exists()


def test_a_hook_that_fails_stops_the_restore(box: Restorable) -> None:
    box.count()
    box.checkpoint().ok()
    config = json.loads((box.bundle / "config.json").read_text())
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]}
    (box.bundle / "config.json").write_text(json.dumps(config))
    result = box.restore()
    assert result.code == 1
    assert "createRuntime hook" in result.err
    assert box.status == ""
