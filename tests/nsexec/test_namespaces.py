"""Making and joining namespaces, id maps, cgroups, and what stage 0 sets before."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nsexec.driver import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    TIMEOUT,
    Attribute,
    Driver,
    Failed,
)

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

NOBODY = 65534
TYPES = {
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "mnt": CLONE_NEWNS,
    "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME,
    "user": CLONE_NEWUSER,
    "uts": CLONE_NEWUTS,
}
ROOT_MAP: list[Attribute] = [("UIDMAP", "0 100000 65536\n"), ("GIDMAP", "0 200000 65536\n"), ("BECOME_ROOT", 1)]

Ready = Callable[..., Driver]


def namespace(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


@pytest.fixture
def other() -> Iterator[int]:
    """A process in namespaces of its own."""
    script = "echo ready; exec sleep 300"
    flags = ["--user", "--map-root-user", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--time"]
    with subprocess.Popen(["unshare", *flags, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize("name", [name for name in TYPES if name != "user"])
def test_each_namespace_is_made_and_no_other(ready: Ready, name: str) -> None:
    driver = ready(("CLONE_FLAGS", TYPES[name]))
    changed = {other for other in TYPES if namespace(driver.pid, other) != namespace("self", other)}
    assert changed == {name}


def test_all_namespaces_are_made_at_once(ready: Ready) -> None:
    flags = sum(TYPES.values())
    driver = ready(("CLONE_FLAGS", flags), *ROOT_MAP)
    assert all(namespace(driver.pid, name) != namespace("self", name) for name in TYPES)


def test_the_id_maps_are_written_and_the_process_is_root_in_them(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *ROOT_MAP)
    output = driver.run(["/bin/cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"])
    assert [line.split() for line in output.splitlines()] == [
        ["0", "100000", "65536"],
        ["0", "200000", "65536"],
        ["allow"],
    ]


def test_becoming_root_leaves_no_group_behind(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *ROOT_MAP, prefix=["/usr/bin/setpriv", "--groups=7,200008"])
    status = Path(f"/proc/{driver.pid}/status").read_text()
    assert "Uid:\t100000\t100000\t100000\t100000\n" in status
    assert "Gid:\t200000\t200000\t200000\t200000\n" in status
    assert "Groups:\t \n" in status


def test_setgroups_is_denied_before_the_gid_map(ready: Ready) -> None:
    maps = [("UIDMAP", "0 0 1"), ("GIDMAP", "0 0 1"), ("SETGROUPS_DENY", 1), ("BECOME_ROOT", 1)]
    driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *maps)
    assert driver.run(["/bin/cat", "/proc/self/setgroups"]) == "deny\n"


def test_a_map_that_the_kernel_refuses_names_the_file(start: Callable[..., Driver]) -> None:
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWUSER), ("UIDMAP", "nonsense"))
    assert failure.value["STEP"] == "write id maps"
    assert failure.value["PATH"].endswith("/uid_map")
    assert failure.value["ERRNO"] == 22


def test_maps_without_root_in_them_cannot_become_root(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.bootstrap(("CLONE_FLAGS", CLONE_NEWUSER), ("UIDMAP", "1 1 1"), ("GIDMAP", "1 1 1"), ("BECOME_ROOT", 1))
    with pytest.raises(Failed, match="not mapped"):
        driver.go()


def test_the_mapping_tools_get_the_pid_and_the_map(ready: Ready, directory: Path) -> None:
    for name in ("uid", "gid"):
        tool = directory / f"{name}map"
        tool.write_text(f'#!/bin/sh\necho "{name}map $*" >>{directory}/calls\necho "$2 $3 $4" >/proc/$1/{name}_map\n')
        tool.chmod(0o755)
    driver = ready(
        ("CLONE_FLAGS", CLONE_NEWUSER),
        *ROOT_MAP,
        ("NEWUIDMAP", str(directory / "uidmap")),
        ("NEWGIDMAP", str(directory / "gidmap")),
    )
    calls = (directory / "calls").read_text().splitlines()
    assert calls == [f"gidmap {driver.pid} 0 200000 65536", f"uidmap {driver.pid} 0 100000 65536"]


def test_what_a_mapping_tool_complains_about_is_in_the_error(start: Callable[..., Driver], directory: Path) -> None:
    tool = directory / "tool"
    tool.write_text("#!/bin/sh\necho uid range not allowed >&2\nexit 3\n")
    tool.chmod(0o755)
    driver = start()
    with pytest.raises(Failed, match="exit status 3: uid range not allowed"):
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWUSER), *ROOT_MAP, ("NEWUIDMAP", str(tool)))


def test_a_missing_mapping_tool_is_named(start: Callable[..., Driver]) -> None:
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWUSER), *ROOT_MAP, ("NEWUIDMAP", "/nonexistent/newuidmap"))
    assert (failure.value["PATH"], failure.value["ERRNO"]) == ("/nonexistent/newuidmap", 2)


@pytest.mark.parametrize("name", ["net", "uts", "ipc", "cgroup", "time", "mnt"])
def test_a_namespace_is_joined_by_its_path(ready: Ready, other: int, name: str) -> None:
    driver = ready(("NS_PATH", f"{name}:/proc/{other}/ns/{name}"))
    assert namespace(driver.pid, name) == namespace(other, name)


def test_the_names_of_config_json_are_understood(ready: Ready, other: int) -> None:
    driver = ready(("NS_PATH", f"network:/proc/{other}/ns/net"), ("NS_PATH", f"mount:/proc/{other}/ns/mnt"))
    assert namespace(driver.pid, "net") == namespace(other, "net")


def test_the_user_namespace_is_joined_between_the_others(ready: Ready, other: int) -> None:
    names = ["net", "uts", "user", "ipc", "mnt"]
    driver = ready(*(("NS_PATH", f"{name}:/proc/{other}/ns/{name}") for name in names), ("BECOME_ROOT", 1))
    assert all(namespace(driver.pid, name) == namespace(other, name) for name in names)


def test_all_namespaces_are_joined_by_pidfd(ready: Ready, other: int) -> None:
    flags = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP
    pidfd = os.pidfd_open(other)
    driver = ready(("NS_PIDFD_FD", 0), ("NS_PIDFD_FLAGS", flags), ("BECOME_ROOT", 1), fds=[pidfd])
    os.close(pidfd)
    for name in ("user", "net", "mnt", "uts", "ipc", "cgroup"):
        assert namespace(driver.pid, name) == namespace(other, name)


def test_joining_by_pidfd_falls_back_to_the_paths(ready: Ready, other: int) -> None:
    # EINVAL: one of them is the user namespace that stage 0 is in already
    pidfd = os.pidfd_open(other)
    driver = ready(
        ("NS_PIDFD_FD", 0),
        ("NS_PIDFD_FLAGS", CLONE_NEWUSER | CLONE_NEWNET),
        ("NS_PATH", f"net:/proc/{other}/ns/net"),
        ("NS_PATH", "user:/proc/self/ns/user"),
        fds=[pidfd],
    )
    os.close(pidfd)
    assert namespace(driver.pid, "user") in {namespace(other, "user"), namespace("self", "user")}
    assert namespace(driver.pid, "net") == namespace(other, "net")


def test_a_dead_process_cannot_be_joined(start: Callable[..., Driver]) -> None:
    with subprocess.Popen(["sleep", "300"]) as process:
        pidfd = os.pidfd_open(process.pid)
        process.kill()
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("NS_PIDFD_FD", 0), ("NS_PIDFD_FLAGS", CLONE_NEWNET), fds=[pidfd])
    os.close(pidfd)
    assert failure.value["ERRNO"] == 3


def test_a_path_of_another_type_is_refused(start: Callable[..., Driver]) -> None:
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("NS_PATH", "net:/proc/self/ns/uts"))
    assert (failure.value["STEP"], failure.value["PATH"]) == ("join net namespace", "/proc/self/ns/uts")
    assert failure.value["SYSCALL"] == "setns"


def test_a_path_that_is_no_namespace_is_refused(start: Callable[..., Driver], directory: Path) -> None:
    (directory / "file").touch()
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("NS_PATH", f"net:{directory}/file"))
    assert failure.value["STEP"] == "join net namespace"


def test_a_fifo_as_namespace_path_does_not_block(start: Callable[..., Driver], directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    driver = start()
    with pytest.raises(Failed, match="join net namespace"):
        driver.bootstrap(("NS_PATH", f"net:{directory}/fifo"))


def test_time_offsets_are_in_force_for_the_process_itself(ready: Ready) -> None:
    offsets = "monotonic 1000000 0\nboottime 2000000 0\n"
    driver = ready(("CLONE_FLAGS", CLONE_NEWTIME), ("TIME_OFFSETS", offsets))
    assert float(driver.run(["/bin/cat", "/proc/uptime"]).split()[0]) > 2_000_000


def test_time_offsets_work_in_a_new_user_namespace(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWTIME | CLONE_NEWUSER), *ROOT_MAP, ("TIME_OFFSETS", "boottime 2000000 0\n"))
    assert float(driver.run(["/bin/cat", "/proc/uptime"]).split()[0]) > 2_000_000


def test_wrong_time_offsets_are_an_error(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.bootstrap(("CLONE_FLAGS", CLONE_NEWTIME), ("TIME_OFFSETS", "nonsense"))
    with pytest.raises(Failed) as failure:
        driver.go()
    assert failure.value["STEP"] == "set time offsets"


def test_oom_score_adj_is_written_when_given(ready: Ready) -> None:
    driver = ready(("OOM_SCORE_ADJ", "321"))
    assert Path(f"/proc/{driver.pid}/oom_score_adj").read_text() == "321\n"


def test_oom_score_adj_is_left_alone_when_absent(ready: Ready) -> None:
    driver = ready()
    assert Path(f"/proc/{driver.pid}/oom_score_adj").read_text() == Path("/proc/self/oom_score_adj").read_text()


def test_a_wrong_oom_score_adj_is_an_error(start: Callable[..., Driver]) -> None:
    driver = start()
    with pytest.raises(Failed) as failure:
        driver.bootstrap(("OOM_SCORE_ADJ", "5000"))
    assert failure.value["STEP"] == "set oom_score_adj to 5000"


def test_the_initial_affinity_is_set_before_the_process_exists(ready: Ready) -> None:
    cpu = max(os.sched_getaffinity(0))
    driver = ready(("CPU_AFFINITY_INITIAL", (1 << cpu).to_bytes(8, "little")))
    assert os.sched_getaffinity(driver.pid) == {cpu}


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A new cgroup v2, in whatever hierarchy this host has."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[words.index("-") + 1] == "cgroup2":
            path = Path(tempfile.mkdtemp(prefix="ctrtest-nsexec-", dir=words[4]))
            yield path
            path.rmdir()
            return
    pytest.skip("needs a cgroup2 mount")


def test_the_process_is_born_in_the_cgroup(cgroup: Path, ready: Ready) -> None:
    fd = os.open(cgroup, os.O_PATH | os.O_DIRECTORY)
    driver = ready(("CGROUP_FD", 0), fds=[fd])
    os.close(fd)
    assert driver.child["IN_CGROUP"] == 1
    assert (cgroup / "cgroup.procs").read_text().split() == [str(driver.pid)]
    driver.run(["/bin/true"])


def test_a_cgroup_that_cannot_be_entered_is_left_to_the_engine(ready: Ready, directory: Path) -> None:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    driver = ready(("CGROUP_FD", 0), fds=[fd])
    os.close(fd)
    assert driver.child["IN_CGROUP"] == 0


@pytest.mark.needs_cgroup_v1
def test_the_process_enters_the_v1_cgroups_that_go_brings(start: Callable[..., Driver]) -> None:
    cgroups = [
        Path(tempfile.mkdtemp(prefix="ctrtest-nsexec-", dir=f"/sys/fs/cgroup/{name}")) for name in ("memory", "pids")
    ]
    try:
        driver = start()
        driver.bootstrap()
        with (cgroups[0] / "tasks").open("w") as memory, (cgroups[1] / "tasks").open("w") as pids:
            driver.go(("CGROUP_TASKS_FD", 0), ("CGROUP_TASKS_FD", 1), fds=[memory.fileno(), pids.fileno()])
        assert [(path / "cgroup.procs").read_text().split() for path in cgroups] == [[str(driver.pid)]] * 2
        driver.run(["/bin/true"])
    finally:
        for path in cgroups:
            path.rmdir()


def test_a_cgroup_that_can_not_be_entered_is_named(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.bootstrap()
    with open("/dev/full", "w") as full, pytest.raises(Failed) as failure:
        driver.go(("CGROUP_TASKS_FD", 0), fds=[full.fileno()])
    assert (failure.value["STEP"], failure.value["PATH"]) == ("enter cgroup", "/dev/full")


def test_the_container_process_is_a_child_of_whoever_started_stage_0(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID))
    assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{driver.pid}/status").read_text()


def test_the_process_is_pid_1_of_a_new_pid_namespace(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID))
    assert driver.run(["/bin/sh", "-c", "echo $$"]) == "1\n"


def test_debug_lines_go_to_the_log_fd(ready: Ready) -> None:
    read, write = os.pipe()
    driver = ready(("LOG_FD", 0), fds=[write])
    os.close(write)
    driver.run(["/bin/true"])
    with os.fdopen(read) as log:
        lines = log.read().splitlines()
    assert {line.split()[1] for line in lines} == {"ctr-init:0", "ctr-init:1"}
    assert lines[-1].endswith("execve /bin/true")


def test_a_log_that_nobody_reads_blocks_nothing(ready: Ready) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    driver = ready(("LOG_FD", 0), fds=[write])
    os.close(write)
    driver.run(["/bin/true"])
    os.close(read)


class TestUnprivileged:
    """What an engine without root does: setpriv takes its privileges away before stage 0 starts."""

    PREFIX = ("/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    MAP: tuple[Attribute, ...] = (
        ("ROOTLESS_EUID", 1),
        ("UIDMAP", f"0 {NOBODY} 1"),
        ("GIDMAP", f"0 {NOBODY} 1"),
        ("SETGROUPS_DENY", 1),
        ("BECOME_ROOT", 1),
    )

    pytestmark = pytest.mark.needs_user_namespaces

    def test_all_namespaces_can_be_made(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", sum(TYPES.values())), *self.MAP, prefix=self.PREFIX)
        assert all(namespace(driver.pid, name) != namespace("self", name) for name in TYPES)
        assert driver.run(["/usr/bin/id", "-u"], ("UID", 0), ("GID", 0)) == "0\n"

    def test_time_offsets_can_be_set(self, ready: Ready) -> None:
        flags = CLONE_NEWUSER | CLONE_NEWTIME
        driver = ready(("CLONE_FLAGS", flags), *self.MAP, ("TIME_OFFSETS", "boottime 2000000 0\n"), prefix=self.PREFIX)
        assert float(driver.run(["/bin/cat", "/proc/uptime"]).split()[0]) > 2_000_000

    def test_a_worker_of_the_same_user_can_join_by_pidfd(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID), *self.MAP, prefix=self.PREFIX)
        target = [f"--{kind}=/proc/{driver.pid}/ns/{name}" for kind, name in (("user", "user"), ("mount", "mnt"))]
        join = [*self.PREFIX, "/usr/bin/nsenter", "--preserve-credentials", *target, "/bin/true"]
        assert subprocess.run(join, timeout=TIMEOUT, check=False).returncode == 0

    def test_no_groups_can_be_had_where_nobody_may_set_groups(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *self.MAP, prefix=self.PREFIX)
        assert driver.run(["/usr/bin/id", "-u"], ("UID", 0), ("GID", 0), ("GROUPS", b"")) == "0\n"

    def test_oom_score_adj_may_be_raised(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *self.MAP, ("OOM_SCORE_ADJ", "500"), prefix=self.PREFIX)
        assert Path(f"/proc/{driver.pid}/oom_score_adj").read_text() == "500\n"

    def test_an_oom_score_adj_that_may_not_be_lowered_is_ignored(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *self.MAP, ("OOM_SCORE_ADJ", "-999"), prefix=self.PREFIX)
        assert driver.run(["/bin/true"]) == ""

    def test_a_second_uid_is_refused_by_the_kernel(self, start: Callable[..., Driver]) -> None:
        driver = start(prefix=self.PREFIX)
        maps = [("UIDMAP", "0 100000 10"), ("GIDMAP", f"0 {NOBODY} 1"), ("SETGROUPS_DENY", 1)]
        with pytest.raises(Failed) as failure:
            driver.bootstrap(("CLONE_FLAGS", CLONE_NEWUSER), *maps)
        assert failure.value["ERRNO"] == 1

    def test_another_namespace_cannot_be_joined(self, start: Callable[..., Driver]) -> None:
        driver = start(prefix=self.PREFIX)
        with pytest.raises(Failed) as failure:
            driver.bootstrap(("NS_PATH", "net:/proc/self/ns/net"))
        assert (failure.value["STEP"], failure.value["ERRNO"]) == ("join net namespace", 1)


def test_stage_0_needs_no_help_from_its_environment(ready: Ready) -> None:
    driver = ready()
    environment = Path(f"/proc/{driver.pid}/environ").read_bytes()
    assert environment.startswith(b"CTR_INIT_SOCKET=") or b"\0CTR_INIT_SOCKET=" in environment


def test_a_joined_mount_namespace_is_where_the_program_is_looked_for(ready: Ready, directory: Path) -> None:
    program = f"printf '#!/bin/sh\\necho inside\\n' >{directory}/program && chmod +x {directory}/program"
    script = f"mount -t tmpfs none {directory} && {program} && echo ready && exec sleep 300"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        driver = ready(("NS_PATH", f"mnt:/proc/{process.pid}/ns/mnt"))
        process.kill()
    assert driver.run([str(directory / "program")]) == "inside\n"
    assert not (directory / "program").exists()


def test_the_program_gets_nothing_but_stdio(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWNS))
    output = driver.run(["/bin/ls", "/proc/self/fd"])
    assert output.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
