"""`.process` of config.json, each property seen from inside a container: when it is there, and when it is not."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import Inside, as_root_of_the_host, changed, parse_probe
from tests.support.needs import lacking
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers


def process(**properties: Any) -> dict[str, Any]:
    return {"process": properties}


# -- what runs, and with what around it


@covers(".process.args")
def test_the_arguments_are_passed_as_they_are(inside: Inside):
    words = ["", " ", "a b", "*", "$HOME", "ä", "\\"]
    printed = inside("sh", "-c", 'for word; do printf "[%s]" "$word"; done', "sh", *words, runc=True)
    assert printed == "".join(f"[{word}]" for word in words)


@covers(".process.env")
def test_the_environment_is_what_is_asked_for_and_home(inside: Inside):
    change = process(env=["PATH=/bin", "EMPTY=", "TWICE=1", "SPACE=a b=c", "TWICE=2"])
    assert sorted(inside("env", change=change).splitlines()) == [
        "EMPTY=",
        "HOME=/root",
        "PATH=/bin",
        "SPACE=a b=c",
        "TWICE=2",
    ]


@covers(".process.env", ".process.user.uid")
@pytest.mark.parametrize(("uid", "home"), [(1000, "/tmp"), (4711, "/")])
def test_home_is_that_of_the_user_in_the_image(inside: Inside, uid: int, home: str):
    assert inside.shell("echo $HOME", process(user={"uid": uid, "gid": 0}), runc=True) == home


@covers(".process.env")
def test_home_of_the_configuration_goes_first(inside: Inside):
    assert inside.shell("echo $HOME", process(env=["PATH=/bin", "HOME=/mine"]), runc=True) == "/mine"


@covers(".process.cwd")
def test_the_working_directory_is_made_and_entered(inside: Inside):
    assert inside("pwd", change=process(cwd="/new/place"), writable=True) == "/new/place"


@covers(".process.cwd")
def test_the_working_directory_is_entered_through_the_symlinks_of_the_image(inside: Inside):
    assert inside.shell("ls -d busybox", process(cwd="/usr/bin"), runc=True) == "busybox"


@covers(".process.cwd")
def test_a_process_without_a_working_directory_is_refused(inside: Inside):
    assert "Cwd property must not be empty" in inside.refused(process(cwd=None))


@covers(".process.commandLine", ".process.user.username")
def test_what_is_for_windows_changes_nothing(inside: Inside):
    change = process(commandLine="echo other", user={"uid": 7, "gid": 8, "username": "app"})
    assert inside.shell("id -u; id -g", change) == "7\n8"


# -- who it is


@covers(".process.user.uid", ".process.user.gid", ".process.user.additionalGids")
def test_ids_and_groups_are_those_asked_for(inside: Inside):
    change = process(user={"uid": 1000, "gid": 1001, "additionalGids": [5, 2000]})
    status = inside.shell("grep -E '^(Uid|Gid|Groups)' /proc/self/status", change, runc=True)
    assert [line.split() for line in status.splitlines()] == [
        ["Uid:", *["1000"] * 4],
        ["Gid:", *["1001"] * 4],
        ["Groups:", "5", "2000"],
    ]


@covers(".process.user.additionalGids")
def test_without_additional_groups_there_are_none(inside: Inside):
    assert inside.probe(process(user={"uid": 1000, "gid": 1000}), runc=True)["groups"] == ""


@covers(".process.user.umask")
@pytest.mark.parametrize(("umask", "seen"), [(0o27, "0027"), (0, "0000"), (None, "0022")])
def test_the_umask_is_set(inside: Inside, umask: int | None, seen: str):
    user = {"uid": 0, "gid": 0} if umask is None else {"uid": 0, "gid": 0, "umask": umask}
    assert inside.shell("umask", process(user=user), runc=True) == seen


CAPABILITIES = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_NET_RAW": 13, "CAP_SYS_CHROOT": 18}
STATUS_NAMES = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}


def mask(*names: str) -> str:
    return f"{sum(1 << CAPABILITIES[name] for name in names):016x}"


@covers(*(f".process.capabilities.{name}" for name in STATUS_NAMES))
def test_each_set_of_capabilities_is_its_own(inside: Inside):
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_SETGID"],
        "ambient": ["CAP_CHOWN"],
    }
    user = {"uid": 1000, "gid": 1000}
    # execve recomputes some of them, so they are read while the process waits for start
    with inside.created(change=process(capabilities=sets, user=user, noNewPrivileges=False)) as container:
        found = container.status()
    assert {name: found[key] for name, key in STATUS_NAMES.items()} == {
        name: mask(*members) for name, members in sets.items()
    }


@covers(".process.capabilities.ambient", ".process.capabilities.inheritable", ".process.capabilities.bounding")
def test_ambient_capabilities_survive_execve_of_a_plain_user(inside: Inside):
    sets = {kind: ["CAP_CHOWN", "CAP_KILL"] for kind in ("bounding", "effective", "permitted", "inheritable")}
    change = process(capabilities={**sets, "ambient": ["CAP_KILL"]}, user={"uid": 1000, "gid": 1000})
    lines = inside.shell("grep Cap /proc/self/status", change, runc=True).splitlines()
    assert dict(line.split() for line in lines) == {
        "CapInh:": mask("CAP_CHOWN", "CAP_KILL"),
        "CapPrm:": mask("CAP_KILL"),
        "CapEff:": mask("CAP_KILL"),
        "CapBnd:": mask("CAP_CHOWN", "CAP_KILL"),
        "CapAmb:": mask("CAP_KILL"),
    }


@covers(".process.capabilities.effective", ".process.capabilities.permitted")
def test_root_can_do_what_it_has_capabilities_for_and_no_more(inside: Inside):
    script = "chown 1:1 /tmp/x && echo changed; chroot / true 2>&1"
    names = {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
    change = process(capabilities=names)
    result = inside.result("sh", "-c", f"touch /tmp/x; {script}", change=change, writable=True, runc=True)
    assert result.out == "changed\nchroot: can't change root directory to '/': Operation not permitted\n"


@covers(".process.capabilities.bounding")
def test_without_capabilities_there_are_none(inside: Inside):
    lines = inside.shell("grep Cap /proc/self/status", process(capabilities=None)).splitlines()
    assert {line.split()[1] for line in lines} == {"0" * 16}


@covers(".process.noNewPrivileges")
@pytest.mark.parametrize(("value", "seen"), [(True, "1"), (False, "0"), (None, "0")])
def test_no_new_privileges_is_as_asked(inside: Inside, value: bool | None, seen: str):
    text = inside("grep", "NoNewPrivs", "/proc/self/status", change=process(noNewPrivileges=value), runc=True)
    assert text.split() == ["NoNewPrivs:", seen]


@covers(".process.apparmorProfile")
@pytest.mark.skipif(Path("/sys/module/apparmor/parameters/enabled").exists(), reason="needs a kernel without AppArmor")
def test_a_profile_is_refused_where_there_is_no_apparmor(inside: Inside):
    assert "apparmor" in inside.refused(process(apparmorProfile="some-profile"))
    assert inside("echo", "ran", change=process(apparmorProfile="unconfined")) == "ran"


@covers(".process.apparmorProfile", "exec --apparmor")
@pytest.mark.needs_apparmor
def test_a_profile_confines_the_process(inside: Inside, apparmor_profile: str):
    change = process(apparmorProfile=apparmor_profile)
    assert inside("cat", "/proc/self/attr/current", change=change).startswith(apparmor_profile)
    with inside.running() as container:
        flags = ("--apparmor", apparmor_profile)
        assert container.exec("cat", "/proc/self/attr/current", flags=flags).text.startswith(apparmor_profile)


@covers(".process.selinuxLabel", ".linux.mountLabel")
@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="needs a kernel without SELinux")
def test_labels_are_refused_where_there_is_no_selinux(inside: Inside):
    label = "system_u:system_r:container_t:s0"
    for change in (process(selinuxLabel=label), {"linux": {"mountLabel": label}}):
        assert "selinux is disabled or not supported" in inside.refused(change)


# -- its limits


@covers(".process.oomScoreAdj")
@pytest.mark.parametrize(("value", "seen"), [(500, "500"), (1000, "1000"), (None, "300")])
def test_oom_score_adj_is_set_or_left_alone(
    ctrun: Runtime, inside: Inside, container_id: str, value: int | None, seen: str
):
    path = inside.bundle(changed(process(oomScoreAdj=value)), args=["cat", "/proc/self/oom_score_adj"])
    caller = Runtime(Path("sh"))
    script = 'echo 300 >/proc/self/oom_score_adj; exec "$@"'
    assert caller("-c", script, "sh", ctrun.path, "run", "-b", path, container_id).text == seen


# name, number, soft and hard: below the hard limits that a test host has
LIMITS = [
    ("RLIMIT_AS", 9, 1 << 32, 1 << 33),
    ("RLIMIT_CORE", 4, 1000, 2000),
    ("RLIMIT_CPU", 0, 1000, 2000),
    ("RLIMIT_DATA", 2, 1 << 32, 1 << 33),
    ("RLIMIT_FSIZE", 1, 1 << 32, 1 << 33),
    ("RLIMIT_LOCKS", 10, 10, 20),
    ("RLIMIT_MEMLOCK", 8, 32768, 65536),
    ("RLIMIT_MSGQUEUE", 12, 10000, 20000),
    ("RLIMIT_NICE", 13, 5, 10),
    ("RLIMIT_NOFILE", 7, 100, 200),
    ("RLIMIT_NPROC", 6, 1000, 2000),
    ("RLIMIT_RSS", 5, 1000, 2000),
    ("RLIMIT_RTPRIO", 14, 5, 10),
    ("RLIMIT_RTTIME", 15, 1000, 2000),
    ("RLIMIT_SIGPENDING", 11, 100, 200),
    ("RLIMIT_STACK", 3, 1 << 20, 1 << 21),
]


@covers(".process.rlimits[].type", ".process.rlimits[].soft", ".process.rlimits[].hard")
@pytest.mark.parametrize(("name", "number", "soft", "hard"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_limits_are_set(inside: Inside, name: str, number: int, soft: int, hard: int):
    change = process(rlimits=[{"type": name, "soft": soft, "hard": hard}])
    own = resource.getrlimit(number)[1]
    if own != resource.RLIM_INFINITY and own < hard and not may_raise_limits():
        assert "operation not permitted" in inside.refused(change)
    else:
        assert inside.probe(change, runc=True)[f"rlimit{number}"] == f"{soft} {hard}"


def may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    return bool(int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


@covers(".process.rlimits[].soft")
def test_limits_that_are_not_named_are_those_of_the_caller(inside: Inside):
    assert inside.probe(process(rlimits=None))["rlimit7"] == "{} {}".format(*resource.getrlimit(resource.RLIMIT_NOFILE))


# -- how it is scheduled

REALTIME = {"linux": {"resources": {"cpu": {"realtimeRuntime": 10000}}}}


# What a process has whose scheduler's parameters are left alone, or whose policy has no nice value.
INHERITED = os.getpriority(os.PRIO_PROCESS, 0)


def scheduler(**values: Any) -> list[Any]:
    """The change, with the real-time share that a v1 cgroup needs for a real-time policy."""
    has_share = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
    real_time = values["policy"] in ("SCHED_FIFO", "SCHED_RR") and has_share
    return [process(scheduler=values), REALTIME if real_time else None]


@covers(".process.scheduler.policy", ".process.scheduler.policy={policy}")
@covers(".process.scheduler.priority", ".process.scheduler.nice")
@pytest.mark.parametrize(
    ("policy", "number", "nice", "priority"),
    [
        ("SCHED_OTHER", "0", 7, 0),
        ("SCHED_FIFO", "1", 0, 12),
        ("SCHED_RR", "2", 0, 1),
        ("SCHED_BATCH", "3", 4, 0),
        ("SCHED_IDLE", "5", INHERITED, 0),
    ],
)
def test_the_scheduler_is_set(inside: Inside, policy: str, number: str, nice: int, priority: int):
    values: dict[str, Any] = {"policy": policy}
    if nice and policy != "SCHED_IDLE":
        values["nice"] = nice
    if priority:
        values["priority"] = priority
    found = inside.probe(scheduler(**values))
    assert (found["policy"], found["nice"], found["priority"]) == (number, str(nice), str(priority))


DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000, "period": 3_000_000}


@covers(".process.scheduler.policy=SCHED_DEADLINE", ".process.scheduler.flags")
@covers(*(f".process.scheduler.{name}" for name in ("runtime", "deadline", "period")))
@covers(*(f".process.scheduler.flags=SCHED_FLAG_{name}" for name in ("RECLAIM", "DL_OVERRUN")))
@pytest.mark.parametrize(
    ("flags", "number"), [([], "0"), (["SCHED_FLAG_RECLAIM"], "2"), (["SCHED_FLAG_DL_OVERRUN"], "4")]
)
def test_a_deadline_is_set(inside: Inside, flags: list[str], number: str):
    found = inside.probe(scheduler(**DEADLINE, flags=flags))
    assert [found[key] for key in ("policy", "runtime", "deadline", "period", "scheduler_flags")] == [
        "6",
        "1000000",
        "2000000",
        "3000000",
        number,
    ]


@covers(*(f".process.scheduler.flags=SCHED_FLAG_{name}" for name in ("RESET_ON_FORK", "KEEP_POLICY", "KEEP_PARAMS")))
@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("SCHED_FLAG_RESET_ON_FORK", ("3", "5", "1")),
        ("SCHED_FLAG_KEEP_POLICY", ("0", "5", "0")),
        ("SCHED_FLAG_KEEP_PARAMS", ("0", str(INHERITED), "0")),
    ],
)
def test_flags_of_the_scheduler_have_their_effect(inside: Inside, flag: str, expected: tuple[str, str, str]):
    found = inside.probe(scheduler(policy="SCHED_BATCH", nice=5, flags=[flag]))
    assert (found["policy"], found["nice"], found["scheduler_flags"]) == expected


@covers(".process.scheduler.policy=SCHED_ISO")
def test_a_policy_that_linux_never_got_is_refused_with_its_place(inside: Inside):
    assert ".process.scheduler" in inside.refused(scheduler(policy="SCHED_ISO"))


@covers(".process.scheduler.flags={flag}")
@pytest.mark.parametrize("flag", ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"])
def test_clamps_of_the_utilization_reach_the_kernel(inside: Inside, flag: str):
    result = inside.result("probe", change=scheduler(policy="SCHED_BATCH", flags=[flag]))
    if os.path.exists("/proc/sys/kernel/sched_util_clamp_min"):
        assert parse_probe(result.text)["policy"] == "3"
    else:  # a kernel without them says so
        assert result.code != 0
        assert ".process.scheduler" in result.err


@covers(".process.ioPriority.class", ".process.ioPriority.priority", ".process.ioPriority.class={name}")
@pytest.mark.parametrize(("name", "number"), [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)])
def test_the_io_priority_is_set(inside: Inside, name: str, number: int):
    found = inside.probe(process(ioPriority={"class": name, "priority": 5}))
    assert int(found["ioprio"]) == number << 13 | 5


@covers(".process.execCPUAffinity.final")
def test_the_affinity_of_exec_is_not_for_the_container_s_own_process(inside: Inside):
    with inside.running(change=process(execCPUAffinity={"initial": "0", "final": "0"})) as container:
        assert os.sched_getaffinity(container.pid) == os.sched_getaffinity(0) != {0}
        assert parse_probe(container.exec("probe").text)["affinity"] == "0"


@covers(".process.execCPUAffinity.initial", ".process.execCPUAffinity.final")
@pytest.mark.parametrize(
    ("affinity", "seen"),
    [({"initial": "1"}, "1"), ({"final": "1"}, "1"), ({"initial": "1", "final": "0"}, "0"), ({"final": "0-1"}, "0 1")],
)
def test_a_process_of_exec_has_the_affinity_of_its_file(
    inside: Inside, directory: Path, affinity: dict[str, str], seen: str
):
    # Since Linux 6.2 the mask that was asked for outlives the move to another cpuset.
    words = {"args": ["probe"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity}
    (directory / "process.json").write_text(json.dumps(words))
    with inside.running() as container:
        found = parse_probe(container.exec(flags=("-p", directory / "process.json")).text)
    assert found["affinity"] == seen


POLICIES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}


@covers(".linux.memoryPolicy.mode", ".linux.memoryPolicy.mode={mode}", ".linux.memoryPolicy.nodes")
@pytest.mark.parametrize("mode", list(POLICIES))
@pytest.mark.needs_file("/sys/devices/system/node/node0")
def test_the_memory_policy_is_set(inside: Inside, mode: str):
    policy = {"mode": mode}
    without_nodes = mode in ("MPOL_DEFAULT", "MPOL_LOCAL")
    if not without_nodes:
        policy["nodes"] = "0"
    found = inside.probe({"linux": {"memoryPolicy": policy}})
    assert found["memory_policy"] == str(POLICIES[mode])
    assert found["memory_nodes"] == ("0" if without_nodes else "1")


@covers(".linux.memoryPolicy.flags", ".linux.memoryPolicy.flags={flag}")
@pytest.mark.parametrize(
    ("flag", "number"), [("MPOL_F_NUMA_BALANCING", 13), ("MPOL_F_RELATIVE_NODES", 14), ("MPOL_F_STATIC_NODES", 15)]
)
@pytest.mark.needs_file("/sys/devices/system/node/node0")
def test_flags_of_the_memory_policy_are_set(inside: Inside, flag: str, number: int):
    found = inside.probe({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}}})
    assert int(found["memory_policy"]) == 2 | 1 << number


@covers(".linux.memoryPolicy.nodes")
@pytest.mark.needs_file("/sys/devices/system/node/node0")
def test_nodes_that_are_not_there_are_refused_with_the_place(inside: Inside):
    assert ".linux.memoryPolicy" in inside.refused({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "900"}}})


@covers(".linux.personality.domain", ".linux.personality.domain={domain}")
@pytest.mark.parametrize(("domain", "number"), [("LINUX", "0"), ("LINUX32", "8")])
def test_the_personality_is_set(inside: Inside, domain: str, number: str):
    caller = process(args=["probe"])
    assert inside.probe([caller, {"linux": {"personality": {"domain": domain}}}])["personality"] == number


@covers(".linux.personality.flags")
def test_flags_of_the_personality_are_refused(inside: Inside):
    change = {"linux": {"personality": {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}}}
    assert ".linux.personality.flags" in inside.refused(change)


# -- its terminal


@covers(".process.terminal")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_there_when_asked_for(ctrun: Runtime, inside: Inside, container_id: str, terminal: bool):
    path = inside.bundle(changed(process(terminal=terminal)), args=["sh", "-c", "tty; probe"])
    with Terminal(ctrun.path, "run", "-b", path, container_id) as screen:
        screen.wait()
        lines = screen.seen.replace("\r", "").splitlines()
    # without one of its own the process keeps the caller's as its stdio, but not as its controlling terminal
    assert lines[0] == ("/dev/pts/0" if terminal else "not a tty")
    assert f"controlling_terminal {int(terminal)}" in lines


@covers(".process.terminal")
def test_the_console_of_a_terminal_is_dev_console(ctrun: Runtime, inside: Inside, container_id: str):
    script = "[ /dev/console -ef /dev/pts/0 ] && echo same-$((1 + 1)); stat -c %t:%T /dev/console"
    path = inside.bundle(changed(process(terminal=True)), args=["sh", "-c", script])
    with Terminal(ctrun.path, "run", "-b", path, container_id) as screen:
        assert screen.wait() == 0
    assert screen.seen.replace("\r", "").splitlines()[-1] == "88:0"


@covers(".process.consoleSize.height", ".process.consoleSize.width")
def test_the_size_of_the_console_is_as_configured(ctrun: Runtime, inside: Inside, directory: Path, container_id: str):
    import array
    import socket

    change = process(terminal=True, consoleSize={"height": 11, "width": 222})
    path = inside.bundle(changed(change), args=["sh", "-c", "stty size; sleep 1000"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "console"))
        server.listen(1)
        ctrun("run", "-d", "-b", path, "--console-socket", directory / "console", container_id).ok()
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    with os.fdopen(array.array("i", ancillary[0][2])[0], "rb", buffering=0) as master:
        seen = b""
        while not seen.endswith(b"\n"):
            seen += master.read(100)
    assert seen == b"11 222\r\n"
    ctrun("delete", "--force", container_id).ok()


def test_the_probe_tells_the_same_as_under_runc(inside: Inside):
    assert lacking("needs_runc") or inside.probe(as_root_of_the_host, runc=True)["pid"] == "1"
