"""startContainer hooks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nsexec import tlv
from tests.nsexec.driver import CLONE_NEWPID, Attribute, Driver, Failed, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

Ready = Callable[..., Driver]


def hook(script: str, *more: Attribute) -> Attribute:
    return ("HOOK", [("HOOK_PATH", "/bin/sh"), ("HOOK_ARG", "hook"), ("HOOK_ARG", "-c"), ("HOOK_ARG", script), *more])


def fails(driver: Driver, *pairs: Attribute) -> Failed:
    driver.settings(*shell("true"), *pairs)
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["KIND"] == "HookError"
    assert driver.wait() == 1
    return failure.value


def test_hooks_run_in_their_order_before_the_program(ready: Ready, directory: Path) -> None:
    out = directory / "out"
    driver = ready()
    driver.run(["/bin/sh", "-c", f"echo program >>{out}"], hook(f"echo 1 >>{out}"), hook(f"echo 2 >>{out}"))
    assert out.read_text() == "1\n2\nprogram\n"


def test_a_hook_reads_the_state_from_stdin(ready: Ready, directory: Path) -> None:
    state = b'{"id": "' + b"x" * 200_000 + b'"}'
    ready().run(["/bin/true"], hook(f"cat >{directory}/out"), ("HOOK_STATE", state[:60_000]))
    assert (directory / "out").read_bytes() == state[:60_000]


def test_a_hook_need_not_read_its_stdin(ready: Ready) -> None:
    assert ready().run(["/bin/echo", "fine"], hook("exec 0<&-; exit 0"), ("HOOK_STATE", b"x" * 60_000)) == "fine\n"


def test_a_hook_has_its_own_arguments_and_environment(ready: Ready, directory: Path) -> None:
    ready().run(["/bin/true"], hook(f'echo "$0 $A ${{PATH_:-none}}" >{directory}/out', ("HOOK_ENV", "A=b")))
    assert (directory / "out").read_text() == "hook b none\n" or (directory / "out").read_text().endswith("b none\n")


def test_a_hook_gets_no_other_fd(ready: Ready, directory: Path) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    driver = ready(preserve=[null])
    os.close(null)
    driver.run(["/bin/true"], hook(f"exec ls /proc/self/fd >{directory}/out"), ("PRESERVE_FDS", 1))
    assert (directory / "out").read_text().split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_a_failing_hook_is_an_error_with_its_output(ready: Ready) -> None:
    failure = fails(ready(), hook("exit 0"), hook("echo one; echo two >&2; exit 7"))
    expected = "error running startContainer hook #1: exit status 7, stdout: one\n, stderr: two\n"
    assert failure["MESSAGE"] == expected


def test_a_killed_hook_is_an_error(ready: Ready) -> None:
    assert "signal: " in fails(ready(), hook("kill -9 $$"))["MESSAGE"]


def test_a_missing_hook_is_an_error(ready: Ready) -> None:
    failure = fails(ready(), ("HOOK", [("HOOK_PATH", "/nonexistent")]))
    assert (failure["ERRNO"], failure["PATH"]) == (2, "/nonexistent")


def test_a_hook_that_takes_too_long_is_killed(ready: Ready, directory: Path) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID))
    failure = fails(driver, hook("exec sleep 300", ("HOOK_TIMEOUT", 1)))
    assert "ran past specified timeout of 1.0s" in failure["MESSAGE"]


def test_a_hook_may_leave_a_daemon_with_its_output_open(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID))
    assert driver.run(["/bin/echo", "fine"], hook("sleep 300 & exit 0")) == "fine\n"


def test_a_talkative_hook_is_not_blocked(ready: Ready) -> None:
    assert (
        ready().run(["/bin/echo", "fine"], hook("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2")) == "fine\n"
    )


def test_a_hook_that_fails_after_start_is_told_through_the_fifo(ready: Ready, directory: Path) -> None:
    os.mkfifo(fifo := directory / "fifo")
    fd = os.open(fifo, os.O_PATH)
    driver = ready()
    driver.settings(*shell("true"), hook("exit 3"), ("FIFO_FD", 0), fds=[fd])
    os.close(fd)
    data = fifo.read_bytes()
    assert data[:1] == b"0"
    name, found = tlv.parse(data[1:])
    assert (name, found["ERR_KIND"]) == ("ERROR", "HookError")
    assert driver.wait() == 1
