"""The setup worker's other steps, its hooks and its terminal, in real namespaces."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CtrError
from tests.support.bundles import Bundles
from tests.support.waiting_container import ROOT, WaitingContainer

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox]

Config = dict[str, Any]
SETUP = ROOT / "bin/ctr-init-setup"
NOBODY = 65534


def changed(**linux: Any) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        config["linux"].update(linux)

    return mutate


def without_cgroup_mount(config: Config) -> None:
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]


def test_host_and_domain_name_are_set(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["hostname"] = "inside"
        config["domainname"] = "example.org"

    before = os.uname().nodename
    with WaitingContainer(bundle(mutate)) as container:
        assert container.set_up().shell("hostname; cat /proc/sys/kernel/domainname") == "inside\nexample.org\n"
    assert os.uname().nodename == before


def test_loopback_is_up_in_a_new_network_namespace(bundle: Bundles):
    with WaitingContainer(bundle()) as container:
        assert "inet 127.0.0.1/8" in container.set_up().shell("ip address show lo")


def test_sysctls_are_written_although_proc_sys_becomes_read_only(bundle: Bundles):
    sysctl = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "99", "net/ipv4/conf/lo/forwarding": "0"}
    with WaitingContainer(bundle(changed(sysctl=sysctl))) as container:
        out = container.set_up().shell(
            "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmni net/ipv4/conf/lo/forwarding; echo 5 > kernel/shmmni"
        )
    assert out.startswith("1\n99\n0\n")
    assert "Read-only file system" in out


def test_an_unknown_sysctl_is_named(bundle: Bundles):
    with (
        WaitingContainer(bundle(changed(sysctl={"kernel.no_such_thing": "1"}))) as container,
        pytest.raises(CtrError) as failure,
    ):
        container.set_up()
    assert failure.value.json_path == ".linux.sysctl.kernel.no_such_thing"
    assert "kernel.no_such_thing" in str(failure.value)


def test_default_devices_and_links_are_there(bundle: Bundles):
    with WaitingContainer(bundle()) as container:
        out = container.set_up().shell(
            "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %A %t:%T %u:%g' $d; done; "
            "for l in fd stdin stdout stderr ptmx; do readlink $l; done"
        )
    assert out.splitlines() == [
        "null crw-rw-rw- 1:3 0:0",
        "zero crw-rw-rw- 1:5 0:0",
        "full crw-rw-rw- 1:7 0:0",
        "random crw-rw-rw- 1:8 0:0",
        "urandom crw-rw-rw- 1:9 0:0",
        "tty crw-rw-rw- 5:0 0:0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


def test_configured_devices_have_their_type_mode_and_owner(bundle: Bundles):
    devices = [
        {"path": "/dev/deep/er/loop", "type": "b", "major": 7, "minor": 300, "fileMode": 0o640, "uid": 1, "gid": 2},
        {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
    ]
    with WaitingContainer(bundle(changed(devices=devices))) as container:
        out = container.set_up().shell("stat -c '%A %t:%T %u:%g' /dev/deep/er/loop /dev/unbuffered /dev/pipe /dev/null")
    assert out.splitlines() == [
        "brw-r----- 7:12c 1:2",
        "crw-rw-rw- 1:3 0:0",
        "prw--w--w- 0:0 0:0",
        "crw------- 1:3 0:0",
    ]


def test_masked_paths_are_empty_and_what_is_missing_is_left_out(bundle: Bundles):
    paths = ["/etc/secret", "/srv/hidden", "/srv/second", "/not/there", "/proc/keys", "/proc/self/not"]
    made = bundle(changed(maskedPaths=paths))
    (made / "rootfs/etc/secret").write_text("secret")
    for name in ("hidden", "second"):
        (made / "rootfs/srv" / name).mkdir(parents=True)
        (made / "rootfs/srv" / name / "file").touch()
    with WaitingContainer(made) as container:
        out = container.set_up().shell(
            "cat /etc/secret /proc/keys; ls /srv/hidden /srv/second; touch /srv/hidden/x; ls -d /not"
        )
    assert "secret" not in out.replace("/etc/secret", "")
    assert out.splitlines()[:3] == ["/srv/hidden:", "", "/srv/second:"]
    assert "Read-only file system" in out
    assert "No such file or directory" in out


def test_a_masked_path_may_go_through_the_symlinks_of_sysfs(bundle: Bundles):
    with WaitingContainer(bundle(changed(maskedPaths=["/sys/class/net/lo"]))) as container:
        assert container.set_up().shell("ls /sys/class/net/lo/ | wc -l") == "0\n"


def test_read_only_paths_are_read_only_and_keep_their_other_flags(bundle: Bundles):
    made = bundle(changed(readonlyPaths=["/tmp/ro", "/dev/shm", "/not/there"]), writable=True)
    (made / "rootfs/tmp/ro").mkdir(parents=True)
    with WaitingContainer(made) as container:
        mounts = {mount.point: mount for mount in container.set_up().mountinfo()}
    assert "ro" in mounts["/tmp/ro"].options
    assert {"ro", "nosuid", "nodev", "noexec"} <= mounts["/dev/shm"].options


def test_the_working_directory_is_made(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["process"]["cwd"] = "/made/for/you"

    with WaitingContainer(bundle(mutate)) as container:
        assert container.set_up().shell("stat -c '%A %u' /made/for/you") == "drwxr-xr-x 0\n"


def test_the_home_directory_of_the_user_is_reported(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["process"]["user"] = {"uid": 77, "gid": 77}

    made = bundle(mutate)
    (made / "rootfs/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nseven:x:77:77::/home/seven:/bin/sh\n")
    with WaitingContainer(made) as container:
        assert container.set_up().home == "/home/seven"


def test_a_user_without_an_entry_has_no_home(bundle: Bundles):
    made = bundle()
    (made / "rootfs/etc/passwd").unlink(missing_ok=True)
    with WaitingContainer(made) as container:
        assert container.set_up().home is None


def test_a_read_only_root_is_read_only_and_a_writable_one_is_not(bundle: Bundles):
    for writable in (False, True):
        with WaitingContainer(bundle(writable=writable)) as container:
            out = container.set_up().shell("touch /new && echo written")
        assert ("written" in out) is writable


# Hooks


def hook(bundle: Path, name: str, script: str) -> Any:
    path = bundle / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"path": str(path), "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}


def test_hooks_run_in_order_with_the_mounts_made_and_the_root_not_yet_changed(bundle: Bundles, directory: Path):
    made = bundle()
    log = directory / "log"
    order: list[str] = []

    def engine_hooks() -> None:
        # the runtime namespace does not see the container's mounts
        order.append(f"runtime {os.path.ismount(made / 'rootfs/proc')}")

    with WaitingContainer(made) as container:
        container.plan.config["hooks"] = {
            "createContainer": [
                hook(made, "one", f"cat > {log}; pwd >> {log}; readlink /proc/self/ns/uts >> {log}"),
                hook(made, "two", f"mountpoint -q proc && ls -d {log} >> {log}; umask >> {log}; touch {made}/rootfs/x"),
            ]
        }
        container.set_up(engine_hooks)
        expected_uts = os.readlink(f"/proc/{container.pid}/ns/uts")
        assert order == ["runtime False"]
        lines = log.read_text().replace("}", "}\n", 1).splitlines()
        state = json.loads(lines[0])
        assert state["status"] == "creating"
        assert state["pid"] == 1
        assert lines[1:] == [str(made / "rootfs"), expected_uts, str(log), "0022"]
        assert container.shell("ls /x") == "/x\n"


def test_a_failing_hook_ends_the_setup(bundle: Bundles):
    made = bundle()
    with WaitingContainer(made) as container:
        container.plan.config["hooks"] = {"createContainer": [hook(made, "bad", "echo because >&2; exit 7")]}
        with pytest.raises(CtrError, match="because") as failure:
            container.set_up()
    assert type(failure.value).__name__ == "HookError"
    assert failure.value.json_path == ".hooks.createContainer[0]"


# Terminal


def test_a_terminal_has_its_slave_on_console_and_its_size(bundle: Bundles):
    with WaitingContainer(bundle(), console=True, console_size=(132, 43)) as container:
        container.set_up()
        assert container.console is not None
        master, slave = container.console
        rows, columns, _, _ = struct.unpack("=4H", fcntl.ioctl(slave, termios.TIOCGWINSZ, b"\0" * 8))
        assert (columns, rows) == (132, 43)
        number = os.fstat(slave).st_rdev
        os.write(slave, b"hello")
        assert os.read(master, 5) == b"hello"
        out = container.shell("stat -c '%t:%T %F' /dev/console; ls /dev/pts")
    assert out.splitlines()[0] == f"{os.major(number):x}:{os.minor(number):x} character special file"
    assert out.splitlines()[1:] == ["0", "ptmx"]


def test_a_terminal_with_a_console_in_the_image_covers_it(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in ("/dev", "/dev/shm")]

    made = bundle(mutate)
    (made / "rootfs/dev/console").touch()
    with WaitingContainer(made, console=True) as container:
        assert container.set_up().shell("stat -c %F /dev/console") == "character special file\n"


# Namespaces


def test_without_a_mount_namespace_the_host_keeps_its_mounts(bundle: Bundles):
    made = bundle(changed(namespaces=[{"type": "uts"}, {"type": "ipc"}], sysctl={"kernel.shmmni": "77"}))
    with WaitingContainer(made) as container:
        container.set_up()
        assert str(made) not in Path("/proc/self/mountinfo").read_text()
        assert container.home is None or container.home.startswith("/")


def test_the_pid_namespace_may_be_the_hosts(bundle: Bundles):
    kinds = ("network", "ipc", "uts", "mount")
    with WaitingContainer(bundle(changed(namespaces=[{"type": kind} for kind in kinds]))) as container:
        assert container.set_up().shell(f"test -d /proc/{os.getpid()} && echo seen") == "seen\n"


def rootless(config: Config) -> None:
    config["linux"]["namespaces"].append({"type": "network"})
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]


def test_a_rootless_engine_sets_up_as_well(bundle: Bundles):
    made = bundle(rootless, rootless=True)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", made / "rootfs"], check=True, timeout=30)
    with WaitingContainer(made, uid=NOBODY) as container:
        assert container.set_up_as_user() == ""
        out = container.shell("id -u; echo $$; stat -c %t:%T /dev/null; hostname; ls -d /sys/kernel; touch /sys/x 2>&1")
    lines = out.splitlines()
    assert lines[:4] == ["0", "1", "1:3", "testhost"]
    assert lines[4] == "/sys/kernel"


def test_a_rootless_engine_names_a_source_that_it_may_not_open(bundle: Bundles, directory: Path):
    (directory / "closed").mkdir(mode=0o700)

    def mutate(config: Config) -> None:
        rootless(config)
        config["mounts"].append(
            {"destination": "/x", "type": "bind", "source": f"{directory}/closed/file", "options": ["bind"]}
        )

    made = bundle(mutate, rootless=True)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", made / "rootfs"], check=True, timeout=30)
    with WaitingContainer(made, uid=NOBODY) as container:
        text = container.set_up_as_user()
    assert "permission denied" in text
    assert str(directory / "closed/file") in text


def test_before_linux_5_8_namespaces_are_joined_one_by_one(bundle: Bundles, monkeypatch: pytest.MonkeyPatch):
    from ctr_common.kernel import _kernel
    from ctr_init import join

    real = _kernel.setns

    class OldKernel:
        def __getattr__(self, name: str) -> Any:
            return getattr(_kernel, name)

        def setns(self, fd: int, nstype: int) -> None:
            if "pidfd" in os.readlink(f"/proc/self/fd/{fd}"):
                raise OSError(22, "invalid argument")
            real(fd, nstype)

    monkeypatch.setattr(join, "_kernel", OldKernel())
    with WaitingContainer(bundle()) as container:
        assert container.set_up().shell("hostname; echo $$") == "testhost\n1\n"


def test_a_dead_container_is_reported(bundle: Bundles):
    with WaitingContainer(bundle()) as container:
        os.kill(container.pid, signal.SIGKILL)
        container.process.wait(10)
        wait_for_end(container.pidfd)
        with pytest.raises(CtrError) as failure:
            container.set_up()
    assert failure.value.step == "join namespaces"
    assert str(failure.value).endswith("no such process")


def wait_for_end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10000)


# By hand


def run_by_hand(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SETUP, *arguments], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.needs_ctr_init
def test_a_dry_run_prints_every_step(bundle: Bundles):
    done = run_by_hand("--dry-run", bundle())
    assert done.returncode == 0, done.stderr
    assert "  1 join namespaces: ipc, uts, network, pid, mount" in done.stdout
    assert "mount: proc on /proc  [.mounts[0]]" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("report: look up the user's home directory, tell the engine")


@pytest.mark.needs_ctr_init
def test_a_dry_run_prints_json(bundle: Bundles):
    done = run_by_hand("--dry-run", "--format", "json", bundle())
    entries = json.loads(done.stdout)
    assert {"step": "set host name", "detail": "testhost", "json_path": ".hostname"} in entries


@pytest.mark.needs_ctr_init
def test_the_worker_can_be_run_on_any_waiting_process(bundle: Bundles):
    with WaitingContainer(bundle()) as container:
        done = run_by_hand("--pid", str(container.pid), "--console", container.bundle)
        assert done.returncode == 0, done.stderr
        assert "terminal /dev/pts/0 of the container" in done.stdout
        assert container.shell("hostname") == "testhost\n"


@pytest.mark.needs_ctr_init
def test_by_hand_a_failure_is_one_line(bundle: Bundles):
    done = run_by_hand("--pid", "999999999", bundle())
    assert done.returncode == 1
    assert done.stderr == "ctr-init-setup: pidfd_open: no such process\n"


@pytest.mark.needs_ctr_init
def test_help_is_printed_and_a_wrong_flag_refused():
    assert run_by_hand("--help").stdout.startswith("usage: ctr-init-setup")
    done = run_by_hand("--nonsense")
    assert done.returncode == 2
    assert "unexpected argument '--nonsense'" in done.stderr
