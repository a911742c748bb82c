"""Attacks of the past, and deaths at bad moments."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nsexec.driver import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    TIMEOUT,
    Attribute,
    Driver,
    Failed,
    command,
    shell,
)
from tests.support.bundles import copy_rootfs

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

NOBODY = 65534
OLD_KERNEL = (sys.executable, "-I", "-S", str(Path(__file__).with_name("old_kernel.py")), str(errno.ENOSYS))

Start = Callable[..., Driver]
Ready = Callable[..., Driver]


def is_dumpable(pid: int) -> bool:
    """Whether the process's files belong to its user; those of a process that is not dumpable are root's."""
    return os.stat(f"/proc/{pid}/environ").st_uid != 0


class TestDumpable:
    """CVE-2016-9962: a process on its way into a container must not be traced from inside."""

    MAP: tuple[Attribute, ...] = (("UIDMAP", "0 100000 10"), ("GIDMAP", "0 100000 10"), ("BECOME_ROOT", 1))

    def test_the_process_is_not_dumpable_while_it_waits_for_settings(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER | CLONE_NEWTIME), *self.MAP, ("TIME_OFFSETS", "boottime 5 0"))
        assert not is_dumpable(driver.pid)

    def test_the_process_is_not_dumpable_while_it_waits_for_start(self, ready: Ready, directory: Path) -> None:
        os.mkfifo(directory / "fifo")
        fd = os.open(directory / "fifo", os.O_PATH)
        driver = ready(("CLONE_FLAGS", CLONE_NEWUSER), *self.MAP)
        driver.settings(*command("/bin/true"), ("UID", 5), ("GID", 5), ("FIFO_FD", 0), fds=[fd])
        os.close(fd)
        assert not is_dumpable(driver.pid)

    def test_the_process_is_not_dumpable_after_the_change_of_user(self, ready: Ready, directory: Path) -> None:
        os.mkfifo(directory / "fifo")
        fd = os.open(directory / "fifo", os.O_PATH)
        driver = ready()
        driver.settings(*command("/bin/true"), ("UID", NOBODY), ("GID", NOBODY), ("FIFO_FD", 0), fds=[fd])
        os.close(fd)
        assert not is_dumpable(driver.pid)

    def test_the_program_is_dumpable_again(self, ready: Ready) -> None:
        read, write = os.pipe()
        driver = ready(stdin=read)
        driver.settings(*command("/bin/cat"), ("UID", NOBODY), ("GID", NOBODY))
        driver.executed()
        assert is_dumpable(driver.pid)
        os.close(read)
        os.close(write)


class TestPlainUser:
    """Who may look into the container process of a plain user, and so enter its namespaces."""

    IDS = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    MAPS: tuple[Attribute, ...] = (
        ("UIDMAP", f"0 {NOBODY} 1"),
        ("GIDMAP", f"0 {NOBODY} 1"),
        ("SETGROUPS_DENY", 1),
        ("BECOME_ROOT", 1),
        ("ROOTLESS_EUID", 1),
    )

    @pytest.fixture
    def theirs(self, ready: Ready) -> Start:
        """Starts a container process of theirs in a new user namespace."""

        def start(flags: int = 0, *more: Attribute, prefix: tuple[str, ...] = (), **options: Any) -> Driver:
            attributes = (("CLONE_FLAGS", CLONE_NEWUSER | flags), *self.MAPS, *more)
            return ready(*attributes, prefix=("/usr/bin/setpriv", *self.IDS, *prefix), **options)

        return start

    @pytest.fixture
    def waiting(self, theirs: Start, directory: Path) -> Start:
        """The same; it then waits for somebody who opens the fifo."""

        def start(*args: Any, **options: Any) -> Driver:
            os.mkfifo(directory / "fifo")
            (directory / "fifo").chmod(0o622)
            driver = theirs(*args, **options)
            fd = os.open(directory / "fifo", os.O_PATH)
            driver.settings(*command("/bin/true"), ("FIFO_FD", 0), fds=[fd])
            os.close(fd)
            return driver

        return start

    def owner_sees(self, driver: Driver, script: str = "readlink /proc/$0/exe") -> bool:
        command = ["setpriv", *self.IDS, "sh", "-c", script, str(driver.pid)]
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0

    def neighbour_sees(self, driver: Driver, *capabilities: str) -> bool:
        """Whether the same user in that user namespace, with all capabilities but those taken away, can look in."""
        enter = (
            f"nsenter --preserve-credentials --user=/proc/$0/ns/user setpriv --bounding-set={','.join(capabilities)}"
        )
        return self.owner_sees(driver, f"{enter} readlink /proc/$0/exe")

    def test_the_owner_may_look_in_while_it_waits_for_settings(self, theirs: Start) -> None:
        assert self.owner_sees(theirs())

    def test_the_owner_may_look_in_while_it_waits_for_start(self, waiting: Start) -> None:
        assert self.owner_sees(waiting())

    def test_a_neighbour_in_the_user_namespace_needs_the_capability(self, waiting: Start) -> None:
        driver = waiting()
        assert self.neighbour_sees(driver, "+all")
        assert not self.neighbour_sees(driver, "-sys_ptrace")

    def test_a_neighbour_needs_it_before_the_settings_too(self, theirs: Start) -> None:
        assert not self.neighbour_sees(theirs(), "-sys_ptrace")

    @pytest.mark.parametrize("flags", [CLONE_NEWNS | CLONE_NEWPID, 0])
    def test_no_procfs_of_the_host_is_open_while_it_waits_in_a_mount_namespace(
        self, waiting: Start, flags: int
    ) -> None:
        driver = waiting(flags)
        held = Path(f"/proc/{driver.pid}/fd")
        found = [
            entry.name for entry in held.iterdir() if (entry / "self").is_symlink() or (entry / "../self").exists()
        ]
        assert len(found) == (0 if flags else 1)

    def test_the_program_runs_when_the_fifo_is_opened(self, waiting: Start, directory: Path) -> None:
        driver = waiting(CLONE_NEWNS | CLONE_NEWPID)
        assert (directory / "fifo").read_bytes() == b"0"
        assert driver.wait() == 0

    @pytest.mark.parametrize("preserved", [0, 1, 2])
    def test_what_is_preserved_stays_open_and_nothing_else(self, theirs: Start, preserved: int) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        driver = theirs(CLONE_NEWNS, preserve=[null, null])
        os.close(null)
        output = driver.run(["/bin/ls", "/proc/self/fd"], ("PRESERVE_FDS", preserved))
        assert output.split() == [str(fd) for fd in range(3 + preserved + 1)]  # the last is the directory that ls reads

    def test_nothing_of_it_reaches_the_program(self, theirs: Start) -> None:
        assert theirs().run(["/usr/bin/env"]) == "PATH=/usr/bin:/bin\n"

    def test_time_offsets_and_a_session_are_made(self, theirs: Start) -> None:
        driver = theirs(CLONE_NEWTIME, ("TIME_OFFSETS", "boottime 1000000 0"), ("NEW_SESSION", 1))
        assert os.getsid(driver.pid) == driver.pid
        output = driver.run(["/bin/cat", "/proc/self/timens_offsets"])
        assert output.split()[-3:] == ["boottime", "1000000", "0"]

    def test_steps_are_logged_before_and_after(self, theirs: Start) -> None:
        read, write = os.pipe()
        theirs(0, ("LOG_FD", 0), ("TRACE", 1), fds=[write]).run(["/bin/true"])
        os.close(write)
        with open(read) as log:
            lines = log.read()
        steps = ["=clone3", "=wait for go", "=execute ctr-init in the user namespace", "=find program, load filter"]
        places = [lines.index(step) for step in steps]
        assert places == sorted(places)

    def test_without_the_system_call_it_is_dumpable_for_its_worker_alone(self, waiting: Start, theirs: Start) -> None:
        prefix = ("--no-new-privs", *OLD_KERNEL)
        assert self.owner_sees(theirs(prefix=prefix))
        assert not self.owner_sees(waiting(prefix=prefix))


class TestWorkingDirectory:
    """CVE-2024-21626: a working directory outside of the container's root."""

    def test_a_directory_of_the_host_reached_through_a_fd_is_noticed(
        self, ready: Ready, directory: Path, busybox_rootfs: Path
    ) -> None:
        root = directory / "root"
        copy_rootfs(busybox_rootfs, root)
        # a fd of the host that was preserved by mistake
        driver = ready(("CLONE_FLAGS", CLONE_NEWNS), preserve=[host := os.open("/usr", os.O_PATH)])
        os.close(host)
        script = (
            f"mount --make-rprivate / && mount --bind {root} {root}"
            f" && mount -t proc proc {root}/proc && cd {root} && mkdir -p old && pivot_root . old && umount -l old"
        )
        subprocess.run(
            ["nsenter", f"--mount=/proc/{driver.pid}/ns/mnt", "sh", "-ec", script], check=True, timeout=TIMEOUT
        )
        pairs = [*command("/bin/busybox", "true"), ("CWD", "/proc/self/fd/3"), ("PRESERVE_FDS", 1)]
        driver.send("SETTINGS", pairs)
        with pytest.raises(Failed, match="outside of container mount namespace root"):
            driver.receive()

    def test_a_directory_that_was_removed_is_noticed(self, ready: Ready, directory: Path) -> None:
        gone = directory / "gone"
        gone.mkdir()
        driver = ready(preserve=[fd := os.open(gone, os.O_PATH)])
        os.close(fd)
        gone.rmdir()
        driver.send("SETTINGS", [*command("/bin/true"), ("CWD", "/proc/self/fd/3"), ("PRESERVE_FDS", 1)])
        with pytest.raises(Failed, match="possible container breakout detected"):
            driver.receive()


class TestProcfs:
    """CVE-2019-16884, CVE-2019-19921: a false /proc in the container."""

    def fake_proc(self, driver: Driver) -> None:
        script = (
            "mount --make-rprivate / && mount -t tmpfs none /proc"
            " && mkdir -p /proc/thread-self/attr/apparmor /proc/self/attr/apparmor"
            " && for self in thread-self self; do touch /proc/$self/attr/exec /proc/$self/attr/apparmor/exec; done"
        )
        enter = ["nsenter", f"--mount=/proc/{driver.pid}/ns/mnt", "sh", "-ec", script]
        subprocess.run(enter, check=True, timeout=TIMEOUT)

    @pytest.mark.parametrize("attribute", ["APPARMOR", "SELINUX"])
    def test_a_label_is_never_written_to_a_file_of_the_container(self, ready: Ready, attribute: str) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWNS))
        self.fake_proc(driver)
        driver.send("SETTINGS", [*command("/bin/true"), (attribute, "label")])
        # the host's own procfs says that there is no such label, or no such module at all
        with pytest.raises(Failed) as failure:
            driver.receive()
        assert failure.value["PATH"] in {"/proc/thread-self/attr/exec", "/proc/thread-self/attr/apparmor/exec"}
        assert failure.value["ERRNO"] in {22, 2}

    def test_the_fifo_is_opened_although_the_container_has_a_false_proc(self, ready: Ready, directory: Path) -> None:
        os.mkfifo(directory / "fifo")
        fd = os.open(directory / "fifo", os.O_PATH)
        driver = ready(("CLONE_FLAGS", CLONE_NEWNS | CLONE_NEWPID))
        self.fake_proc(driver)
        driver.settings(*command("/bin/echo", "fine"), ("FIFO_FD", 0), fds=[fd])
        os.close(fd)
        assert (directory / "fifo").read_bytes() == b"0"
        assert driver.read_output() == "fine\n"

    def test_stage_0_refuses_a_proc_that_is_none(self, binaries: dict[str, Path]) -> None:
        prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", 'mount -t tmpfs none /proc && exec "$0"']
        with Driver(binaries["static"], prefix=prefix) as driver:
            driver.send("BOOTSTRAP")
            with pytest.raises(Failed, match="/proc is not a procfs"):
                driver.receive()

    def test_stage_0_refuses_a_directory_of_a_procfs_in_place_of_its_root(self, binaries: dict[str, Path]) -> None:
        prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", 'mount --bind /proc/sys /proc && exec "$0"']
        with Driver(binaries["static"], prefix=prefix) as driver:
            driver.send("BOOTSTRAP")
            with pytest.raises(Failed, match="/proc is not a procfs"):
                driver.receive()

    def test_a_mount_over_a_file_of_proc_is_not_written_to(self, binaries: dict[str, Path], directory: Path) -> None:
        fake = directory / "fake"
        fake.touch()
        script = f'mount --bind {fake} /proc/$$/oom_score_adj && exec "$0"'
        with Driver(binaries["static"], prefix=["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script]) as driver:
            driver.send("BOOTSTRAP", [("OOM_SCORE_ADJ", "5")])
            with pytest.raises(Failed) as failure:
                driver.receive()
        assert failure.value["ERRNO"] == 18
        assert fake.read_text() == ""


class TestDeathOfTheEngine:
    def test_before_the_bootstrap(self, start: Start) -> None:
        driver = start()
        driver.socket.close()
        assert driver.reap(driver.stage_0) == 1

    def test_before_go(self, start: Start) -> None:
        driver = start()
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWPID))
        driver.socket.close()
        assert driver.wait() == 1

    def test_with_an_unread_go(self, start: Start) -> None:
        driver = start()
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWPID))
        driver.send("GO")
        driver.socket.close()
        assert driver.wait() == 1

    def test_before_the_settings(self, ready: Ready) -> None:
        driver = ready(("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWNS))
        driver.socket.close()
        assert driver.wait() == 1

    def test_while_the_settings_are_dealt_with(self, ready: Ready) -> None:
        driver = ready()
        driver.send("SETTINGS", shell("true"))
        driver.socket.close()
        assert driver.wait() in {0, 1}

    def test_of_stage_0_before_the_process_was_released(self, start: Start, directory: Path) -> None:
        tool = directory / "tool"
        tool.write_text(f"#!/bin/sh\necho $1 >{directory}/pid\nkill -9 $PPID\n")
        tool.chmod(0o755)
        driver = start()
        maps = [("UIDMAP", "0 0 1"), ("GIDMAP", "0 0 1"), ("NEWGIDMAP", str(tool))]
        driver.send("BOOTSTRAP", [("CLONE_FLAGS", CLONE_NEWUSER), *maps])
        assert driver.reap(driver.stage_0) == -9
        assert driver.reap(int((directory / "pid").read_text())) == 1


def test_the_binary_can_run_from_a_sealed_memfd_cve_2019_5736(binaries: dict[str, Path]) -> None:
    import fcntl
    import shutil

    memfd = os.memfd_create("ctr-init", os.MFD_ALLOW_SEALING)
    with open(binaries["static"], "rb") as source, os.fdopen(os.dup(memfd), "wb") as target:
        shutil.copyfileobj(source, target)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, 0xF)
    os.set_inheritable(memfd, False)
    with Driver(Path(f"/proc/{os.getpid()}/fd/{memfd}")) as driver:
        driver.bootstrap(("CLONE_FLAGS", CLONE_NEWPID))
        driver.go()
        with pytest.raises(OSError):
            os.open(f"/proc/{driver.pid}/exe", os.O_WRONLY)
        driver.run(["/bin/true"])
    os.close(memfd)
