"""What the container process does to itself, read from the program that it became."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nsexec import tlv
from tests.nsexec.driver import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    TIMEOUT,
    Attribute,
    Driver,
    Failed,
    command,
    memfd,
    rlimit,
    shell,
)

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

NOBODY = 65534
CHOWN, NET_BIND_SERVICE = 0, 10
KEY_USR_SEARCH = 0x080000

Ready = Callable[..., Driver]


def status_of(driver: Driver, *pairs: Attribute) -> dict[str, str]:
    lines = driver.run(["/bin/cat", "/proc/self/status"], *pairs).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def caps(
    bounding: int = 0, effective: int = 0, inheritable: int = 0, permitted: int = 0, ambient: int = 0
) -> list[Attribute]:
    names = ("BOUNDING", "EFFECTIVE", "INHERITABLE", "PERMITTED", "AMBIENT")
    masks = (bounding, effective, inheritable, permitted, ambient)
    return [(f"CAP_{name}", mask) for name, mask in zip(names, masks, strict=True)]


def cap_sets(status: dict[str, str]) -> list[int]:
    return [int(status[name], 16) for name in ("CapBnd", "CapEff", "CapInh", "CapPrm", "CapAmb")]


def test_argv_and_environment_are_passed_as_they_are(ready: Ready) -> None:
    driver = ready()
    driver.settings(
        ("ARG", "cat"),
        ("ARG", "/proc/self/cmdline"),
        ("ARG", "/proc/self/environ"),
        ("ENV", "PATH=/nowhere:/bin"),
        ("ENV", "EMPTY="),
        ("ENV", "A=b c\nd"),
    )
    assert driver.read_output() == (
        "cat\0/proc/self/cmdline\0/proc/self/environ\0PATH=/nowhere:/bin\0EMPTY=\0A=b c\nd\0"
    )


def test_ids_and_groups_are_those_of_the_user(ready: Ready) -> None:
    status = status_of(ready(), ("UID", 1234), ("GID", 2345), ("GROUPS", [7, 8, 9]))
    assert status["Uid"].split() == ["1234"] * 4
    assert status["Gid"].split() == ["2345"] * 4
    assert status["Groups"].split() == ["7", "8", "9"]


def test_an_empty_list_of_groups_drops_all(ready: Ready) -> None:
    assert status_of(ready(), ("UID", 1), ("GID", 1), ("GROUPS", []))["Groups"] == ""


def test_a_uid_that_is_not_mapped_is_an_error_with_a_hint(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), ("UIDMAP", "0 0 1"), ("GIDMAP", "0 0 1"), ("BECOME_ROOT", 1))
    driver.send("SETTINGS", [*shell("true"), ("UID", 5), ("GID", 0)])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["MESSAGE"] == "setresuid 5"
    assert "not mapped" in failure.value["HINT"]


def test_the_five_capability_sets_are_those_asked_for(ready: Ready) -> None:
    net, chown = 1 << NET_BIND_SERVICE, 1 << CHOWN
    sets = caps(net | chown, chown, net, net | chown, net)
    status = status_of(ready(), ("UID", 1000), ("GID", 1000), *sets)
    # what is ambient is permitted and effective after execve; the rest is not, for a user who is not root
    assert cap_sets(status) == [net | chown, net, net, net, net]


def test_root_keeps_exactly_the_capabilities_asked_for(ready: Ready) -> None:
    net = 1 << NET_BIND_SERVICE
    assert cap_sets(status_of(ready(), ("UID", 0), ("GID", 0), *caps(net, net, 0, net))) == [net, net, 0, net, 0]


def test_no_capabilities_at_all_are_possible(ready: Ready) -> None:
    assert cap_sets(status_of(ready(), *caps())) == [0] * 5


def test_capabilities_are_left_alone_without_an_attribute(ready: Ready) -> None:
    own = {
        line.split(":")[0]: line.split(":")[1].strip() for line in Path("/proc/self/status").read_text().splitlines()
    }
    assert cap_sets(status_of(ready())) == cap_sets(own)


def test_an_ambient_capability_that_is_not_inheritable_is_left_out_as_by_runc(ready: Ready) -> None:
    assert cap_sets(status_of(ready(), *caps(1, 1, 0, 1, 1))) == [1, 1, 0, 1, 0]


def test_the_umask_is_set(ready: Ready) -> None:
    assert status_of(ready(), ("UMASK", 0o27))["Umask"] == "0027"


def test_no_new_privs_is_set_when_asked_for(ready: Ready) -> None:
    assert status_of(ready(), ("NO_NEW_PRIVS", 1))["NoNewPrivs"] == "1"


def test_no_new_privs_is_left_alone_otherwise(ready: Ready) -> None:
    assert status_of(ready())["NoNewPrivs"] == "0"


def test_rlimits_are_set(ready: Ready) -> None:
    limits = [rlimit(resource.RLIMIT_NOFILE, 100, 200), rlimit(resource.RLIMIT_CORE, 0, 0)]
    output = ready().run(["/bin/cat", "/proc/self/limits"], *limits)
    found = {line[:25].strip(): line[25:].split()[:2] for line in output.splitlines()}
    assert found["Max open files"] == ["100", "200"]
    assert found["Max core file size"] == ["0", "0"]


def test_an_rlimit_that_may_not_be_raised_names_itself(ready: Ready) -> None:
    # one's own hard limit: without CAP_SYS_RESOURCE in the bounding set nobody can raise it
    driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), ("UIDMAP", "0 0 1"), ("GIDMAP", "0 0 1"), ("BECOME_ROOT", 1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    driver.send("SETTINGS", [*shell("true"), rlimit(resource.RLIMIT_NOFILE, 1, hard + 1)])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["MESSAGE"].startswith("error setting rlimit type 7 (RLIMIT_NOFILE soft 1 hard ")
    assert failure.value["ERRNO"] == 1


def test_a_tiny_fd_limit_does_not_hinder_the_start(ready: Ready, directory: Path) -> None:
    os.mkfifo(fifo := directory / "fifo")
    fd = os.open(fifo, os.O_PATH)
    driver = ready()
    driver.settings(*command("/bin/true"), rlimit(resource.RLIMIT_NOFILE, 10, 10), ("FIFO_FD", 0), fds=[fd])
    os.close(fd)
    assert fifo.read_bytes() == b"0"
    assert driver.wait() == 0


def test_the_personality_is_set(ready: Ready) -> None:
    assert ready().run(["/bin/cat", "/proc/self/personality"], ("PERSONALITY", 0x0008)) == "00000008\n"


def test_the_scheduler_is_set(ready: Ready) -> None:
    sched_attr = struct.pack("=IIQiIQQQ", 48, 3, 0, 5, 0, 0, 0, 0)  # SCHED_BATCH, nice 5
    script = "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH, os.nice(0))"
    assert ready().run([sys.executable, "-c", script], ("SCHEDULER", sched_attr)) == "True 5\n"


def test_a_scheduler_that_the_kernel_refuses_names_the_property(ready: Ready) -> None:
    driver = ready()
    driver.send("SETTINGS", [*shell("true"), ("SCHEDULER", struct.pack("=IIQiIQQQ", 48, 77, 0, 0, 0, 0, 0, 0))])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["JSON_PATH"] == ".process.scheduler"


def test_the_io_priority_is_set(ready: Ready) -> None:
    assert ready().run(["/usr/bin/ionice"], ("IO_PRIORITY", (2 << 13) | 6)) == "best-effort: prio 6\n"


def test_the_memory_policy_is_set(ready: Ready) -> None:
    policy = struct.pack("=IIQ", 2, 0, 1)  # MPOL_BIND to node 0
    output = ready().run(["/bin/cat", "/proc/self/numa_maps"], ("MEMORY_POLICY", policy))
    assert " bind:0 " in output or " bind=static:0 " in output


def test_the_final_affinity_is_set(ready: Ready) -> None:
    cpu = max(os.sched_getaffinity(0))
    status = status_of(ready(), ("CPU_AFFINITY", (1 << cpu).to_bytes(8, "little")))
    assert status["Cpus_allowed_list"] == str(cpu)


def test_an_affinity_without_a_cpu_is_an_error(ready: Ready) -> None:
    driver = ready()
    driver.send("SETTINGS", [*shell("true"), ("CPU_AFFINITY", bytes(8))])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["STEP"] == "set CPU affinity"


def test_a_session_keyring_of_its_own_is_joined_by_name(ready: Ready) -> None:
    first = ready()
    # Keyrings of containers that other tests of this run made end some time after these.
    name = f"_ses.ctrtest-{os.getpid()}-joined-by-name"
    first.settings(*shell("cat /proc/keys"), ("KEYRING", name))
    first.executed()
    found = [line for line in first.read_output().splitlines() if name in line]
    assert len(found) == 1
    assert int(found[0].split()[4], 16) & KEY_USR_SEARCH


def test_a_new_session_is_made(ready: Ready) -> None:
    output = ready().run([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], ("NEW_SESSION", 1))
    assert output == "True\n"


def test_a_new_session_can_be_asked_for_in_the_bootstrap_too(ready: Ready) -> None:
    driver = ready(("NEW_SESSION", 1))
    assert os.getsid(driver.pid) == driver.pid
    driver.run(["/bin/true"], ("NEW_SESSION", 1))


def test_the_parent_death_signal_survives_the_change_of_user(ready: Ready) -> None:
    script = "import ctypes; s = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(s)); print(s.value)"
    sets: list[Attribute] = [("UID", NOBODY), ("GID", NOBODY), ("PARENT_DEATH_SIGNAL", signal.SIGUSR1)]
    assert ready().run([sys.executable, "-c", script], *sets) == f"{int(signal.SIGUSR1)}\n"


def test_signals_have_their_default_dispositions_and_none_is_blocked(ready: Ready) -> None:
    old = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGHUP, signal.SIGRTMIN + 3)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGRTMIN + 1})
    try:
        driver = ready()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in old:
            signal.signal(number, handler)
    status = status_of(driver)
    assert [int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


class TestWorkingDirectory:
    def test_it_is_entered(self, ready: Ready, directory: Path) -> None:
        assert ready().run(["/bin/pwd"], ("CWD", str(directory))) == f"{directory}\n"

    def test_it_is_the_root_when_none_is_given(self, ready: Ready) -> None:
        assert ready().run(["/bin/pwd"]) == "/\n"

    def test_one_that_root_alone_may_enter_is_entered_as_root(self, ready: Ready, directory: Path) -> None:
        directory.chmod(0o700)
        output = ready().run(["/bin/pwd", "-P"], ("CWD", str(directory)), ("UID", NOBODY), ("GID", NOBODY))
        assert output == f"{directory}\n"

    def test_one_that_the_user_alone_may_enter_is_entered_as_the_user(self, ready: Ready, directory: Path) -> None:
        # in a user namespace that does not map the owner, root has no rights there, and the user's group has
        inside = directory / "inside"
        inside.mkdir()
        os.chown(inside, 0, 300_007)
        inside.chmod(0o010)
        driver = ready(
            ("CLONE_FLAGS", CLONE_NEWUSER),
            ("UIDMAP", "0 100000 10"),
            ("GIDMAP", "0 200000 1\n7 300007 1"),
            ("BECOME_ROOT", 1),
        )
        driver.settings(*command("/bin/true"), ("CWD", str(inside)), ("UID", 5), ("GID", 7), ("GROUPS", []))
        driver.executed()
        assert driver.wait() == 0

    def test_one_that_nobody_may_enter_is_an_error_in_the_known_words(self, ready: Ready, directory: Path) -> None:
        inside = directory / 'a "b"'
        inside.mkdir()
        inside.chmod(0o000)
        driver = ready(
            ("CLONE_FLAGS", CLONE_NEWUSER), ("UIDMAP", "0 100000 10"), ("GIDMAP", "0 200000 10"), ("BECOME_ROOT", 1)
        )
        driver.send("SETTINGS", [*shell("true"), ("CWD", str(inside)), ("UID", 5), ("GID", 5)])
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["MESSAGE"] == f'chdir to cwd ("{directory}/a \\"b\\"") set in config.json failed'
        assert (failure.value["ERRNO"], failure.value["STEP"]) == (13, None)

    def test_one_that_does_not_exist_is_an_error(self, ready: Ready) -> None:
        driver = ready()
        driver.send("SETTINGS", [*shell("true"), ("CWD", "/nonexistent")])
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["ERRNO"] == 2


class TestFds:
    SCRIPT = "import os; print(*sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1])"

    def test_none_but_stdio_survives(self, ready: Ready) -> None:
        assert ready().run([sys.executable, "-I", "-S", "-c", self.SCRIPT]) == "0 1 2\n"

    def test_preserved_ones_survive(self, ready: Ready) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        driver = ready(preserve=[null, null])
        os.close(null)
        output = driver.run([sys.executable, "-I", "-S", "-c", self.SCRIPT], ("PRESERVE_FDS", 2))
        assert output == "0 1 2 3 4\n"

    def test_inherited_ones_that_are_not_preserved_are_closed(self, ready: Ready) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        driver = ready(preserve=[null, null])
        os.close(null)
        output = driver.run([sys.executable, "-I", "-S", "-c", self.SCRIPT], ("PRESERVE_FDS", 1))
        assert output == "0 1 2 3\n"

    def test_one_that_was_not_passed_cannot_be_preserved(self, ready: Ready) -> None:
        driver = ready()
        driver.send("SETTINGS", [*shell("true"), ("PRESERVE_FDS", 3)])
        with pytest.raises(Failed, match="file descriptor 3"):
            driver.receive()

    def test_nothing_of_the_host_is_open_while_the_process_waits(self, ready: Ready, directory: Path) -> None:
        os.mkfifo(directory / "fifo")
        fd = os.open(directory / "fifo", os.O_PATH)
        extra = os.open("/", os.O_PATH)
        # one comes with a message, the other was left open by the engine
        driver = ready(("CLONE_FLAGS", CLONE_NEWNS), preserve=[extra])
        driver.settings(*command("/bin/true"), ("FIFO_FD", 0), fds=[fd, extra])
        os.close(fd)
        os.close(extra)
        targets = {os.readlink(path) for path in Path(f"/proc/{driver.pid}/fd").iterdir()}
        stdio = {"/dev/null"} | {target for target in targets if target.startswith(("pipe:", "socket:"))}
        # the last one while the fifo is being opened through it
        assert targets - stdio - {f"/proc/{driver.pid}/fd"} == {"/proc", str(directory / "fifo")}


class TestStdio:
    @pytest.fixture
    def file(self, directory: Path) -> Iterator[int]:
        fd = os.open(directory / "stdin", os.O_RDWR | os.O_CREAT)
        yield fd
        os.close(fd)

    def test_it_is_given_to_the_user(self, ready: Ready, file: int) -> None:
        ready(stdin=file).run(["/bin/true"], ("UID", 1234), ("GID", 5678))
        status = os.fstat(file)
        assert (status.st_uid, status.st_gid) == (1234, os.getegid())

    def test_a_null_device_keeps_its_owner(self, ready: Ready, directory: Path) -> None:
        null = directory / "null"
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        fd = os.open(null, os.O_RDWR)
        ready(stdin=fd).run(["/bin/true"], ("UID", 1234), ("GID", 5678))
        os.close(fd)
        assert null.stat().st_uid == 0

    def test_closed_stdio_is_filled_with_dev_null(self, binaries: dict[str, Path], directory: Path) -> None:
        script = directory / "closed"
        script.write_text('#!/bin/sh\nexec "$@" 0<&-\n')
        script.chmod(0o755)
        with Driver(binaries["static"], prefix=[str(script)]) as driver:
            driver.bootstrap()
            driver.go()
            assert driver.run(["/bin/readlink", "/proc/self/fd/0"]) == "/dev/null\n"


class TestRoot:
    def test_the_mount_namespace_is_entered_anew_after_a_pivot(self, ready: Ready, directory: Path) -> None:
        """What is mounted over the root of the namespace afterwards is what the program sees."""
        driver = ready(("CLONE_FLAGS", CLONE_NEWNS))
        root = directory / "root"
        for name in ("bin", "proc", "lib", "lib64", "usr"):
            (root / name).mkdir(parents=True)
        script = (
            f"mount --make-rprivate / && mount --bind {root} {root}"
            f" && for d in bin lib lib64 usr proc; do mount --rbind /$d {root}/$d; done"
            f" && touch {root}/inside && cd {root} && mount --move . /"
        )
        subprocess.run(
            ["nsenter", f"--mount=/proc/{driver.pid}/ns/mnt", "sh", "-c", script], check=True, timeout=TIMEOUT
        )
        assert "inside" in driver.run(["/bin/ls", "/"])

    def test_a_root_fd_is_changed_into(self, ready: Ready, directory: Path, busybox_rootfs: Path) -> None:
        fd = os.open(busybox_rootfs, os.O_PATH | os.O_DIRECTORY)
        assert "bin" in ready().run(["/bin/busybox", "ls", "/"], ("ROOT_FD", 0), fds=[fd]).split()
        os.close(fd)


class TestFifo:
    @pytest.fixture
    def created(self, ready: Ready, directory: Path) -> tuple[Driver, Path]:
        fifo = directory / "exec.fifo"
        os.mkfifo(fifo)
        fifo.chmod(0o622)
        fd = os.open(fifo, os.O_PATH)
        driver = ready(("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWNS))
        driver.settings(*shell("echo started"), ("FIFO_FD", 0), ("UID", NOBODY), ("GID", NOBODY), fds=[fd])
        os.close(fd)
        return driver, fifo

    def test_execve_waits_for_a_reader(self, created: tuple[Driver, Path]) -> None:
        driver, fifo = created
        assert Path(f"/proc/{driver.pid}/comm").read_text() == "ctr-init:1\n"
        assert fifo.read_bytes() == b"0"
        driver.executed()
        assert driver.read_output() == "started\n"

    def test_a_reader_that_leaves_at_once_starts_nothing_or_all(self, created: tuple[Driver, Path]) -> None:
        driver, fifo = created
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(read, True)
        driver.executed()
        os.close(read)
        assert driver.read_output() == "started\n"

    def test_the_process_stays_when_the_engine_leaves(self, created: tuple[Driver, Path]) -> None:
        driver, fifo = created
        driver.socket.close()
        assert fifo.read_bytes() == b"0"
        assert driver.read_output() == "started\n"

    def test_it_costs_little_memory_meanwhile(self, created: tuple[Driver, Path], binary: Path) -> None:
        driver, _ = created
        if binary.name == "ctr-init":
            status = Path(f"/proc/{driver.pid}/status").read_text()
            anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            assert int(anonymous.split()[1]) < 300


class TestExecutable:
    def fails(self, ready: Ready, *argv: str, path: str = "/usr/bin:/bin") -> str:
        driver = ready()
        driver.send("SETTINGS", [("ARG", word) for word in argv] + [("ENV", f"PATH={path}")])
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["STEP"] is None
        number = failure.value["ERRNO"]
        reason = f": {os.strerror(number).lower()}" if number else ""
        assert driver.wait() == 1
        return str(failure.value["MESSAGE"]) + reason

    def test_one_that_is_not_in_path(self, ready: Ready) -> None:
        assert self.fails(ready, "no-such") == 'exec: "no-such": executable file not found in $PATH'

    def test_one_without_a_path_to_search(self, ready: Ready) -> None:
        assert self.fails(ready, "ls", path="") == 'exec: "ls": executable file not found in $PATH'

    def test_an_empty_name(self, ready: Ready) -> None:
        assert self.fails(ready, "") == 'exec: "": executable file not found in $PATH'

    def test_one_that_does_not_exist(self, ready: Ready) -> None:
        assert self.fails(ready, "/no-such") == 'exec: "/no-such": stat /no-such: no such file or directory'

    def test_one_that_is_not_executable(self, ready: Ready) -> None:
        assert self.fails(ready, "/etc/passwd") == 'exec: "/etc/passwd": permission denied'

    def test_a_directory(self, ready: Ready) -> None:
        assert self.fails(ready, "/usr") == 'exec: "/usr": is a directory'

    def test_one_on_a_noexec_mount(self, ready: Ready) -> None:
        assert self.fails(ready, "/proc/version") == 'exec: "/proc/version": permission denied'

    def test_the_working_directory_is_not_searched(self, ready: Ready, directory: Path) -> None:
        assert self.fails(ready, "ls", path=":.:") == 'exec: "ls": executable file not found in $PATH'

    def test_a_name_with_odd_characters_is_quoted_as_go_does(self, ready: Ready) -> None:
        assert self.fails(ready, 'a"\n\x01é') == 'exec: "a\\"\\n\\x01é": executable file not found in $PATH'

    def test_an_error_longer_than_a_datagram_arrives_all_the_same(self, ready: Ready) -> None:
        driver = ready()
        name = "x" * 70_000
        data = [("ARG", name), ("ENV", "PATH=/bin")]
        driver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        driver.send_raw(tlv.raw_message(tlv.MESSAGES["INDIRECT"], b""), [fd := memfd(tlv.message("SETTINGS", data))])
        os.close(fd)
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert name in failure.value["MESSAGE"]

    def test_the_user_s_rights_decide(self, ready: Ready, directory: Path) -> None:
        program = directory / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o700)
        driver = ready()
        driver.send("SETTINGS", [*command(str(program)), ("UID", NOBODY), ("GID", NOBODY), *caps()])
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["MESSAGE"] == f'exec: "{program}"'
        assert failure.value["ERRNO"] == 13

    def test_an_execve_that_fails_reaches_an_engine_that_is_still_there(self, ready: Ready, directory: Path) -> None:
        program = directory / "program"
        program.write_text("garbage")
        program.chmod(0o755)
        driver = ready()
        driver.settings(*command(str(program)))
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["MESSAGE"] == f"exec {program}"
        assert failure.value["ERRNO"] == 8
        assert driver.wait() == 1

    def test_after_the_engine_left_an_execve_that_fails_is_told_on_stderr(self, ready: Ready, directory: Path) -> None:
        program = directory / "program"
        program.write_text("garbage")
        program.chmod(0o755)
        os.mkfifo(fifo := directory / "fifo")
        fd = os.open(fifo, os.O_PATH)
        driver = ready()
        driver.settings(*command(str(program)), ("FIFO_FD", 0), fds=[fd])
        os.close(fd)
        driver.socket.close()
        assert fifo.read_bytes() == b"0"
        assert driver.wait() == 1
        assert driver.read_errors() == f"exec {program}: exec format error\n"


def test_non_blocking_is_not_left_on_stdio(ready: Ready) -> None:
    script = "import fcntl, os; print([bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK) for fd in range(3)])"
    assert ready().run([sys.executable, "-c", script]) == "[False, False, False]\n"
