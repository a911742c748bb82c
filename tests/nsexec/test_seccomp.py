"""Filters and their listeners."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nsexec import filters
from tests.nsexec.driver import CLONE_NEWPID, Driver, Failed, command, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

FLAG_TSYNC = 1
FLAG_NEW_LISTENER = 8
FLAG_TSYNC_ESRCH = 16
NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101

Ready = Callable[..., Driver]


@pytest.mark.parametrize("no_new_privs", [0, 1])
def test_a_refused_system_call_fails_in_the_program(ready: Ready, directory: Path, no_new_privs: int) -> None:
    driver = ready()
    script = f"mkdir {directory}/new 2>&1; exit 0"
    pairs = [("SECCOMP_BPF", filters.refuse(["mkdir", "mkdirat"])), ("NO_NEW_PRIVS", no_new_privs)]
    assert "Operation not permitted" in driver.run(["/bin/sh", "-c", script], *pairs)


def test_the_filter_is_in_force_with_tsync_too(ready: Ready) -> None:
    pairs = [("SECCOMP_BPF", filters.refuse([])), ("NO_NEW_PRIVS", 1), ("SECCOMP_FLAGS", FLAG_TSYNC)]
    assert "Seccomp:\t2\n" in ready().run(["/bin/cat", "/proc/self/status"], *pairs)


def test_with_no_new_privs_the_filter_comes_last_and_may_forbid_all_before(ready: Ready) -> None:
    # sendmsg is needed for PREPARED, so a filter that kills for it must come after that
    filter_ = filters.refuse(["sendmsg"], filters.KILL_PROCESS)
    assert ready().run(["/bin/echo", "fine"], ("SECCOMP_BPF", filter_), ("NO_NEW_PRIVS", 1)) == "fine\n"


def test_a_user_without_privileges_gets_the_filter_without_no_new_privs(ready: Ready) -> None:
    pairs = [("SECCOMP_BPF", filters.refuse([])), ("UID", 65534), ("GID", 65534), ("CAP_BOUNDING", 0)]
    assert "Seccomp:\t2\n" in ready().run(["/bin/cat", "/proc/self/status"], *pairs)


def test_a_filter_that_the_kernel_refuses_is_an_error(ready: Ready) -> None:
    driver = ready()
    driver.send("SETTINGS", [*shell("true"), ("SECCOMP_BPF", struct.pack("=HBBI", 0x20, 0, 0, 0))])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert (failure.value["STEP"], failure.value["ERRNO"]) == ("install seccomp filter", 22)


@pytest.mark.parametrize("no_new_privs", [0, 1])
@pytest.mark.parametrize("flags", [FLAG_NEW_LISTENER, FLAG_NEW_LISTENER | FLAG_TSYNC | FLAG_TSYNC_ESRCH])
def test_the_listener_is_sent_and_answers_the_program(ready: Ready, flags: int, no_new_privs: int) -> None:
    driver = ready()
    filter_ = filters.refuse(["uname"], filters.USER_NOTIF)
    driver.send(
        "SETTINGS",
        [*command("/bin/uname"), ("SECCOMP_BPF", filter_), ("SECCOMP_FLAGS", flags), ("NO_NEW_PRIVS", no_new_privs)],
    )
    _, (listener,) = driver.expect("SECCOMP_LISTENER")
    driver.send("ACKNOWLEDGED")
    driver.expect("PREPARED")
    driver.executed()
    request = bytearray(80)
    fcntl.ioctl(listener, NOTIF_RECV, request)
    identity, pid = struct.unpack_from("=QI", request)
    assert pid == driver.pid
    fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", identity, 0, -1, 0))
    assert driver.wait() == 1
    assert "Operation not permitted" in driver.read_errors()


def test_a_listener_for_sendmsg_itself_still_gets_out(ready: Ready) -> None:
    driver = ready()
    filter_ = filters.refuse(["sendmsg"], filters.USER_NOTIF)
    pairs = [("SECCOMP_BPF", filter_), ("SECCOMP_FLAGS", FLAG_NEW_LISTENER), ("NO_NEW_PRIVS", 1)]
    driver.send("SETTINGS", [*command("/bin/true"), *pairs])
    _, (listener,) = driver.expect("SECCOMP_LISTENER")
    driver.send("ACKNOWLEDGED")
    request = bytearray(80)
    fcntl.ioctl(listener, NOTIF_RECV, request)  # PREPARED, which an agent lets pass
    fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", struct.unpack_from("=Q", request)[0], 0, 0, 1))
    driver.expect("PREPARED")
    assert driver.wait() == 0


def test_an_unacknowledged_listener_ends_with_the_engine(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID))
    pairs = [("SECCOMP_BPF", filters.refuse([])), ("SECCOMP_FLAGS", FLAG_NEW_LISTENER)]
    driver.send("SETTINGS", [*command("/bin/true"), *pairs])
    driver.expect("SECCOMP_LISTENER")
    driver.socket.close()
    assert driver.wait() == 1


def test_the_courier_of_the_listener_leaves_no_process(ready: Ready) -> None:
    driver = ready()
    pairs = [("SECCOMP_BPF", filters.refuse([])), ("SECCOMP_FLAGS", FLAG_NEW_LISTENER)]
    driver.send("SETTINGS", [*command("/bin/cat", "/proc/thread-self/children", "/proc/self/status"), *pairs])
    driver.expect("SECCOMP_LISTENER")
    driver.send("ACKNOWLEDGED")
    driver.expect("PREPARED")
    output = driver.read_output()
    assert output.startswith("Name:")
    assert "Threads:\t1\n" in output
