"""Processes: the wrappers of c/kernel/process.c on the real kernel, spawn above all."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
from collections.abc import Iterator, Sequence

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import in_child, is_cloexec, open_fds

TOOLS = {name: shutil.which(name) or "" for name in ("cat", "env", "ls", "sleep")}


@pytest.fixture(scope="module")
def shell() -> Iterator[int]:
    fd = os.open("/bin/sh", os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def output(exe: int, argv: Sequence[str], env: Sequence[str] = (), fds: Sequence[tuple[int, int]] = ()) -> str:
    """What a spawned program writes to its stdout; it must succeed."""
    reader, writer = os.pipe()
    pid, pidfd = _kernel.spawn(exe, argv, env, [(writer, 1), *fds])
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    os.close(pidfd)
    return text


def test_spawn_runs_a_program_and_returns_its_pid_and_pidfd(shell: int) -> None:
    pid, pidfd = _kernel.spawn(shell, ["sh", "-c", "exit 7"], [], [])
    try:
        assert is_cloexec(pidfd)
        assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        assert os.waitpid(pid, 0) == (pid, 7 << 8)
    finally:
        os.close(pidfd)


def test_spawn_passes_arguments_and_environment_and_nothing_else(shell: int) -> None:
    script = f'echo "$0 $1"; exec {TOOLS["env"]}'
    lines = output(shell, ["sh", "-c", script, "a b", "ü"], ["X=1", "Y="]).splitlines()

    assert lines[0] == "a b ü"
    assert {"X=1", "Y="} <= set(lines[1:])
    assert not any(line.startswith(("PATH=/usr", "HOME=")) for line in lines)


def test_spawn_maps_fds_that_overlap(shell: int) -> None:
    def work() -> str:
        for fd, data in ((7, b"a"), (8, b"b")):
            reader, writer = os.pipe()
            os.write(writer, data)
            os.close(writer)
            os.dup2(reader, fd, inheritable=False)
        # a swap, and one fd under a second number
        script = "read a <&7; read b <&8; read c <&9; echo $a$b$c"
        return output(shell, ["sh", "-c", script], [], [(7, 8), (8, 7), (8, 9)])

    assert in_child(work) == "ba\n"


def test_spawn_keeps_an_fd_that_is_mapped_to_itself_and_no_other() -> None:
    def work() -> list[str]:
        _kernel.close_range(3, 0xFFFFFFFF, k.CLOSE_RANGE_CLOEXEC)
        kept, other = os.pipe()
        exe = os.open(TOOLS["ls"], os.O_RDONLY | os.O_CLOEXEC)
        listed = set(output(exe, ["ls", "/proc/self/fd"], [], [(kept, kept)]).split())
        return [*sorted(listed & {str(kept), str(other), str(exe)}), str(kept)]

    kept, expected = in_child(work)
    assert kept == expected


def test_spawn_resets_ignored_and_blocked_signals(shell: int) -> None:
    def work() -> str:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        _kernel.sigprocmask(k.SIG_BLOCK, [k.SIGTERM, k.SIGUSR1])
        return output(shell, ["sh", "-c", "while read line; do echo $line; done </proc/self/status"])

    status = dict(line.split(":", 1) for line in in_child(work).splitlines() if ":" in line)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) == 0


def test_spawn_leaves_the_signal_mask_of_the_caller_alone(shell: int) -> None:
    def work() -> list[int]:
        _kernel.sigprocmask(k.SIG_SETMASK, [k.SIGUSR1])
        output(shell, ["sh", "-c", ":"])
        return sorted(_kernel.sigprocmask(k.SIG_BLOCK, []))

    assert in_child(work) == [k.SIGUSR1]


def test_a_failed_execve_comes_back_as_an_error_and_leaves_no_child() -> None:
    def work() -> list[object]:
        before = open_fds()
        exe = os.open("/etc/passwd", os.O_RDONLY)
        try:
            _kernel.spawn(exe, ["x"], [], [(0, 0)])
        except OSError as error:
            found = [error.errno, error.syscall, error.filename]  # type: ignore[attr-defined]
        os.close(exe)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            found.append("no child")
        return [*found, open_fds() == before]

    assert in_child(work) == [errno.EACCES, "execveat", "x", "no child", True]


def test_a_bad_fd_in_the_map_is_an_error(shell: int) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        _kernel.spawn(shell, ["sh"], [], [(9999, 3)])

    assert raised.value.syscall == "dup2"  # type: ignore[attr-defined]


@pytest.mark.parametrize("fds", [[(1,)], [[1, 1]], 5])
def test_a_map_of_another_shape_is_refused(shell: int, fds: object) -> None:
    with pytest.raises(TypeError):
        _kernel.spawn(shell, ["sh"], [], fds)  # type: ignore[arg-type]


def test_a_process_is_signalled_through_its_pidfd() -> None:
    exe = os.open(TOOLS["sleep"], os.O_RDONLY)
    pid, pidfd = _kernel.spawn(exe, ["sleep", "60"], [], [])
    os.close(exe)
    try:
        _kernel.pidfd_send_signal(pidfd, k.SIGKILL)
        assert os.waitpid(pid, 0)[1] == k.SIGKILL
        with pytest.raises(ProcessLookupError) as raised:
            _kernel.pidfd_send_signal(pidfd, k.SIGKILL)
    finally:
        os.close(pidfd)

    assert raised.value.syscall == "pidfd_send_signal"  # type: ignore[attr-defined]


def test_pidfd_open_is_close_on_exec() -> None:
    fd = _kernel.pidfd_open(os.getpid())
    try:
        assert is_cloexec(fd)
    finally:
        os.close(fd)


def test_prctl_takes_numbers_and_strings() -> None:
    def work() -> list[object]:
        _kernel.prctl(k.PR_SET_NAME, b"renamed")
        _kernel.prctl(k.PR_SET_NO_NEW_PRIVS, 1)
        with open("/proc/self/comm") as file:
            return [file.read().strip(), _kernel.prctl(k.PR_GET_NO_NEW_PRIVS)]

    assert in_child(work) == ["renamed", 1]


def test_prctl_failure_names_it() -> None:
    with pytest.raises(OSError, match="Invalid") as raised:
        _kernel.prctl(-1)

    assert raised.value.syscall == "prctl"  # type: ignore[attr-defined]


def test_prlimit_sets_a_limit_and_returns_the_one_before() -> None:
    def work() -> list[object]:
        _kernel.prlimit(0, k.RLIMIT_CORE, 5, 10)
        return [_kernel.prlimit(0, k.RLIMIT_CORE, 0, 0), _kernel.prlimit(os.getpid(), k.RLIMIT_CORE, 0, 0)]

    assert in_child(work) == [[5, 10], [0, 0]]


def test_prlimit_knows_infinity() -> None:
    def work() -> list[int]:
        soft, hard = _kernel.prlimit(0, k.RLIMIT_AS, k.RLIM_INFINITY, k.RLIM_INFINITY)
        return [soft, hard, *_kernel.prlimit(0, k.RLIMIT_AS, -1, -1)]

    assert in_child(work)[2:] == [k.RLIM_INFINITY, k.RLIM_INFINITY]


def test_close_range_marks_or_closes() -> None:
    def work() -> list[bool]:
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        _kernel.close_range(reader, reader, k.CLOSE_RANGE_CLOEXEC)
        marked = is_cloexec(reader)
        _kernel.close_range(writer, writer)
        return [marked, writer in open_fds()]

    assert in_child(work) == [True, False]


def test_the_status_of_a_process_of_others_is_known_once_it_is_reaped() -> None:
    ends, begins = os.pipe()
    keep, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(9)
        os.waitid(os.P_PID, grandchild, os.WEXITED | os.WNOWAIT)
        os.write(begins, f"{grandchild}".encode())
        os.read(keep, 1)
        os.waitpid(grandchild, 0)
        os._exit(0)
    pidfd = _kernel.pidfd_open(int(os.read(ends, 16)))
    try:
        if unsupported := info_unsupported(pidfd):
            pytest.skip(unsupported)
        assert _kernel.pidfd_info(pidfd) is None
        os.write(let_go, b".")
        os.waitpid(child, 0)
        assert _kernel.pidfd_info(pidfd) == 9 << 8
        hung_up = select.epoll()
        hung_up.register(pidfd, 0)
        assert hung_up.poll(0) == [(pidfd, select.EPOLLHUP)]
        hung_up.close()
    finally:
        for fd in (ends, begins, keep, let_go, pidfd):
            os.close(fd)


def info_unsupported(pidfd: int) -> str:
    """Why the kernel does not tell exit statuses, or nothing."""
    try:
        _kernel.pidfd_info(pidfd)
    except OSError:
        return "needs Linux 6.15"
    return ""


@pytest.mark.parametrize(
    ("command", "number"),
    [(k.LINUX_REBOOT_CMD_RESTART, signal.SIGHUP), (k.LINUX_REBOOT_CMD_POWER_OFF, signal.SIGINT)],
)
def test_reboot_in_a_pid_namespace_ends_its_first_process_by_a_signal(command: int, number: int) -> None:
    def work() -> int:
        _kernel.unshare(k.CLONE_NEWUSER | k.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                _kernel.reboot(command)
                os._exit(1)
            while True:
                signal.pause()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # reboot(2), "Behavior inside PID namespaces"
    assert in_child(work) == -number
