"""Docker: flags of `docker run`, each seen to have its effect inside the container."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.docker import Docker
from tests.support.capabilities import (
    CAP_CHOWN,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SYS_ADMIN,
    LONG_KNOWN,
    own_capabilities,
)
from tests.support.command import Result

pytestmark = pytest.mark.needs_docker
Run = Callable[..., Result]
Background = Callable[..., str]

# cgroup v1 file, cgroup v2 file: whichever is there
READ_CGROUP = "cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"
EFFECTIVE = "awk '/CapEff/ { print $2 }' /proc/self/status"


def cgroup_file(v1: str, v2: str) -> str:
    """Script that prints the one of the two files that there is."""
    return READ_CGROUP.format(v1=v1, v2=v2)


def namespace(kind: str) -> str:
    """This process's namespace of that kind."""
    return os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.covers(".linux.resources.memory.limit")
@pytest.mark.needs_limits
def test_memory_limit(docker_run: Run):
    script = cgroup_file("memory/memory.limit_in_bytes", "memory.max")
    assert docker_run("-m", "48m", script=script).text == str(48 << 20)


@pytest.mark.covers(".linux.resources.memory.reservation")
@pytest.mark.needs_limits
def test_memory_reservation(docker_run: Run):
    script = cgroup_file("memory/memory.soft_limit_in_bytes", "memory.low")
    assert docker_run("--memory-reservation", "24m", script=script).text == str(24 << 20)


@pytest.mark.covers(".linux.resources.cpu.quota", ".linux.resources.cpu.period")
@pytest.mark.needs_limits
def test_cpus(docker_run: Run):
    script = cgroup_file("cpu/cpu.cfs_quota_us", "cpu.max")
    assert docker_run("--cpus", "0.5", script=script).text.split()[0] == "50000"


@pytest.mark.covers(".linux.resources.cpu.shares")
@pytest.mark.needs_limits
def test_cpu_shares(docker_run: Run):
    script = cgroup_file("cpu/cpu.shares", "cpu.weight")
    assert docker_run("--cpu-shares", "512", script=script).text in ("512", "20")


@pytest.mark.covers(".linux.resources.cpu.cpus", ".linux.resources.cpu.mems")
@pytest.mark.needs_limits
def test_cpuset(docker_run: Run):
    script = "awk '/Cpus_allowed_list/ { print $2 }' /proc/self/status"
    assert docker_run("--cpuset-cpus", "0", script=script).text == "0"


@pytest.mark.needs_limits
def test_pids_limit(docker_run: Run):
    script = cgroup_file("pids/pids.max", "pids.max")
    assert docker_run("--pids-limit", "17", script=script).text == "17"


@pytest.mark.covers(".linux.resources.pids.limit")
@pytest.mark.needs_limits
def test_pids_limit_stops_a_fork_loop(docker_run: Run):
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo never"
    result = docker_run("--pids-limit", "6", script=script)
    assert "can't fork" in result.err


@pytest.mark.covers(".process.user.uid", ".process.user.gid")
def test_user_by_number_and_group(docker_run: Run):
    assert docker_run("--user", "1234:2345", script="id -u; id -g").text.split() == ["1234", "2345"]


def test_user_by_name_has_its_groups(docker_run: Run):
    assert docker_run("--user", "app", script="id -u; id -G").text.split() == ["1000", "1000", "2000"]


@pytest.mark.covers(".process.user.additionalGids")
def test_group_add(docker_run: Run):
    assert "4321" in docker_run("--group-add", "4321", script="id -G").text.split()


@pytest.mark.covers(".process.capabilities.bounding")
def test_cap_add(docker_run: Run):
    plain = int(docker_run(script=EFFECTIVE).text, 16)
    more = int(docker_run("--cap-add", "NET_ADMIN", script=EFFECTIVE).text, 16)
    assert more == plain | CAP_NET_ADMIN != plain


def test_cap_drop(docker_run: Run):
    plain = int(docker_run(script=EFFECTIVE).text, 16)
    less = int(docker_run("--cap-drop", "NET_RAW", script=EFFECTIVE).text, 16)
    assert less == plain & ~CAP_NET_RAW != plain


def test_cap_drop_all(docker_run: Run):
    script = "awk '/^Cap/ { print $2 }' /proc/self/status"
    assert set(docker_run("--cap-drop", "ALL", script=script).text.split()) == {"0" * 16}


@pytest.mark.covers(".process.capabilities.effective")
def test_cap_drop_takes_the_power(docker_run: Run):
    assert docker_run(script="chown 1 /tmp").code == 0
    result = docker_run("--cap-drop", "CHOWN", script="chown 1 /tmp")
    assert result.code == 1
    assert "Operation not permitted" in result.err
    assert CAP_CHOWN & own_capabilities()


def test_privileged_has_all_capabilities_of_the_host(docker_run: Run, docker_privileged: list[str]):
    assert (
        int(docker_run(*docker_privileged, script=EFFECTIVE).text, 16) & LONG_KNOWN == own_capabilities() & LONG_KNOWN
    )
    assert not int(docker_run(script=EFFECTIVE).text, 16) & CAP_SYS_ADMIN


def test_privileged_may_mount_and_sees_the_devices(docker_run: Run, docker_privileged: list[str]):
    script = "mount -t tmpfs none /tmp && ls /dev | wc -l"
    assert docker_run(script=script).code != 0
    assert int(docker_run(*docker_privileged, script=script).text) > 20


@pytest.mark.covers(".linux.maskedPaths")
def test_privileged_masks_nothing(docker_run: Run, docker_privileged: list[str]):
    script = "grep -c ' /proc/' /proc/self/mountinfo"
    assert int(docker_run(script=script).text) > 4
    assert docker_run(*docker_privileged, script=script).out.strip() == "0"


@pytest.mark.covers(".linux.maskedPaths", ".linux.readonlyPaths")
def test_proc_is_masked_and_partly_read_only(docker_run: Run):
    script = "wc -c < /proc/keys; ls /proc/acpi /sys/firmware | grep -v :; echo 1 > /proc/sys/kernel/domainname"
    result = docker_run(script=script)
    assert result.out.split() == ["0"]
    assert "Read-only file system" in result.err


@pytest.mark.covers(".root.readonly")
def test_read_only(docker_run: Run):
    result = docker_run("--read-only", script="touch /file || touch /dev/shm/file && echo yes")
    assert "Read-only file system" in result.err
    assert result.out == "yes\n"


def test_tmpfs_with_options(docker_run: Run):
    script = "grep ' /scratch ' /proc/self/mountinfo; touch /scratch/x && stat -c %a /scratch"
    lines = docker_run("--read-only", "--tmpfs", "/scratch:rw,noexec,size=1m,mode=1770", script=script).lines
    assert "noexec" in lines[0]
    assert "size=1024k" in lines[0]
    assert lines[1] == "1770"


@pytest.mark.covers(".mounts[].options")
def test_tmpfs_size_is_a_limit(docker_run: Run):
    result = docker_run("--tmpfs", "/scratch:size=64k", script="dd if=/dev/zero of=/scratch/x bs=1k count=100")
    assert "No space left on device" in result.err


@pytest.mark.covers("mount option ro")
def test_volume_read_only(docker_run: Run, directory: Path):
    (directory / "file").write_text("from the host")
    result = docker_run("-v", f"{directory}:/data:ro", script="cat /data/file; touch /data/new")
    assert result.out == "from the host"
    assert "Read-only file system" in result.err
    assert not (directory / "new").exists()


def test_volume_writable(docker_run: Run, directory: Path):
    docker_run("-v", f"{directory}:/data", script="echo from the container > /data/new").ok()
    assert (directory / "new").read_text() == "from the container\n"


def test_volume_over_a_file(docker_run: Run, directory: Path):
    (directory / "motd").write_text("over a file")
    assert docker_run("-v", f"{directory}/motd:/etc/passwd:ro", script="cat /etc/passwd").text == "over a file"


def test_named_volume_keeps_its_files(docker: Docker, docker_run: Run, new_name: Callable[[], str]):
    volume = new_name()
    docker_run("-v", f"{volume}:/keep", script="echo kept > /keep/file").ok()
    assert docker_run("-v", f"{volume}:/keep", script="cat /keep/file").text == "kept"
    docker("volume", "rm", volume).ok()


@pytest.mark.parametrize(("propagation", "field"), [("rprivate", ""), ("rslave", "master:")])
def test_bind_propagation(docker_run: Run, directory: Path, propagation: str, field: str):
    flags = ["--mount", f"type=bind,source={directory},target=/data,bind-propagation={propagation}"]
    result = docker_run(*flags, script="grep ' /data ' /proc/self/mountinfo")
    if field and result.code:
        assert "not a shared" in result.err  # the host's root is private
        return
    fields = result.text.split(" - ", maxsplit=1)[0]
    assert (field in fields) if field else ("master:" not in fields and "shared:" not in fields)


def test_init_is_process_1_and_reaps(docker_run: Run):
    script = "cat /proc/1/comm; (sleep 0.01 &); sleep 0.1; grep -l 'State:.Z' /proc/[0-9]*/status; true"
    assert docker_run("--init", script=script).text in ("docker-init", "tini")
    assert docker_run(script="cat /proc/1/comm; :").text == "sh"


@pytest.mark.covers(*(f"namespace {name} absent" for name in ("network", "pid", "ipc", "uts")))
@pytest.mark.parametrize(
    ("flag", "kind"), [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts"), ("--network=host", "net")]
)
def test_host_namespaces(docker_run: Run, flag: str, kind: str):
    read = f"readlink /proc/self/ns/{kind}"
    assert docker_run(script=read).text != namespace(kind)
    assert docker_run(flag, script=read).text == namespace(kind)


def test_pid_host_sees_the_hosts_processes(docker_run: Run):
    assert docker_run("--pid=host", script=f"cat /proc/{os.getpid()}/comm").code == 0
    assert docker_run(script=f"cat /proc/{os.getpid()}/comm").code != 0


def test_uts_host_has_the_hosts_name(docker_run: Run):
    assert docker_run("--uts=host", script="hostname").text == os.uname().nodename


@pytest.mark.covers("namespace network new")
def test_network_none_has_only_loopback(docker_run: Run):
    assert docker_run("--network=none", script="ls /sys/class/net").text == "lo"


@pytest.mark.covers("namespace network joined", "namespace pid joined", "namespace ipc joined")
@pytest.mark.parametrize(("flag", "kind"), [("--pid", "pid"), ("--network", "net"), ("--ipc", "ipc")])
def test_namespaces_of_another_container(
    docker: Docker, docker_run: Run, docker_background: Background, flag: str, kind: str
):
    name = docker_background("--ipc", "shareable")
    other = docker("exec", name, "readlink", f"/proc/self/ns/{kind}").text
    assert docker_run(f"{flag}=container:{name}", script=f"readlink /proc/self/ns/{kind}").text == other


@pytest.mark.covers(".linux.devices[].path", ".linux.resources.devices[].access")
@pytest.mark.needs_file("/dev/fuse")
def test_device_may_be_used_as_allowed(docker_run: Run):
    flags = ["--device", "/dev/fuse:/dev/given:r"]
    result = docker_run(*flags, script=": < /dev/given && echo readable; : > /dev/given")
    assert result.out == "readable\n"
    assert "Operation not permitted" in result.err


@pytest.mark.covers(".linux.resources.devices[].allow")
@pytest.mark.needs_file("/dev/fuse")
def test_device_not_given_cannot_be_opened(docker_run: Run):
    result = docker_run(script="mknod /tmp/fuse c 10 229 && echo made; : < /tmp/fuse")
    assert result.out == "made\n"
    assert "Operation not permitted" in result.err


def test_default_devices(docker_run: Run):
    script = (
        "head -c 4 /dev/zero | wc -c; echo x > /dev/null; head -c 3 /dev/urandom | wc -c; test -c /dev/tty; ls /dev"
    )
    words = docker_run(script=script).text.split()
    assert words[:2] == ["4", "3"]
    assert {"console", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "zero"} - set(words) <= {
        "console"
    }


@pytest.mark.covers(".linux.seccomp.syscalls[].action", ".linux.seccomp.syscalls[].names")
def test_seccomp_profile_from_a_file(docker_run: Run, directory: Path):
    profile = directory / "seccomp.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    result = docker_run("--security-opt", f"seccomp={profile}", script="mkdir /tmp/x; touch /tmp/y && echo touched")
    assert "Operation not supported" in result.err
    assert result.out == "touched\n"


def test_seccomp_default_profile_and_unconfined(docker_run: Run):
    script = "awk '/^Seccomp:/ { print $2 }' /proc/self/status; unshare -U true && echo unshared"
    assert docker_run(script=script).out.split() == ["2"]
    assert docker_run("--security-opt", "seccomp=unconfined", script=script).out.split() == ["0", "unshared"]


@pytest.mark.covers(".process.noNewPrivileges")
def test_no_new_privileges(docker_run: Run):
    script = "awk '/NoNewPrivs/ { print $2 }' /proc/self/status"
    assert docker_run(script=script).text == "0"
    assert docker_run("--security-opt", "no-new-privileges", script=script).text == "1"


@pytest.mark.covers(".process.rlimits[].soft", ".process.rlimits[].hard")
def test_ulimit(docker_run: Run):
    assert docker_run("--ulimit", "nofile=123:456", script="ulimit -Sn; ulimit -Hn").text.split() == ["123", "456"]


@pytest.mark.covers(".hostname", ".domainname")
def test_hostname_and_domainname(docker_run: Run):
    script = "hostname; cat /proc/sys/kernel/domainname"
    flags = ["--hostname", "inner", "--domainname", "example.test"]
    assert docker_run(*flags, script=script).text.split() == ["inner", "example.test"]


@pytest.mark.covers(".process.cwd")
def test_workdir_is_made_when_missing(docker_run: Run):
    assert docker_run("--workdir", "/new/place", script="pwd").text == "/new/place"


def test_entrypoint(docker: Docker):
    assert docker("run", "--rm", "--entrypoint", "echo", "busybox", "as", "given").text == "as given"


@pytest.mark.covers(".process.env")
def test_environment(docker_run: Run):
    result = docker_run("--env", "COLOUR=dark red", "--user", "app", script='echo "$COLOUR|$HOME|$PATH"')
    assert result.text == "dark red|/tmp|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_shm_size(docker_run: Run):
    assert "8192" in docker_run("--shm-size", "8m", script="df -k /dev/shm").text.split()


@pytest.mark.covers(".linux.sysctl")
def test_sysctl(docker_run: Run):
    flags = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "--sysctl", "kernel.msgmax=4096"]
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"
    assert docker_run(*flags, script=script).text.split() == ["99", "4096"]


@pytest.mark.covers(".process.oomScoreAdj")
def test_oom_score_adj(docker_run: Run):
    assert docker_run("--oom-score-adj", "345", script="cat /proc/self/oom_score_adj").text == "345"


@pytest.mark.covers("namespace cgroup new")
def test_cgroup_namespace(docker_run: Run):
    read = "readlink /proc/self/ns/cgroup"
    assert docker_run("--cgroupns=private", script=read).text != namespace("cgroup")
    assert docker_run("--cgroupns=host", script=read).text == namespace("cgroup")


def test_stop_signal(docker: Docker, docker_background: Background):
    flags = ["--stop-signal", "USR2"]
    name = docker_background(*flags, script="trap 'exit 12' USR2; touch /ready; while :; do sleep 0.05; done")
    docker("exec", name, "sh", "-c", "until test -e /ready; do :; done").ok()
    docker("stop", name).ok()
    assert docker.inspect(name)["State"]["ExitCode"] == 12
