"""Containers of a plain user, and of a root that is one in a user namespace alone, natively and without cgroups.

Two things are kept apart: whether the caller is root in its user namespace (then it needs no user namespace of the
container's), and whether it is likely to have full access to cgroups (`--rootless`).
"""

from __future__ import annotations

import array
import grp
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.users import User
from tests.support.bundles import Bundles, Config
from tests.support.command import Result
from tests.support.inside import changed, end, held_namespaces, mount, namespaces, parse_probe, with_mounts
from tests.support.runtime import Runtime, runtime_under_test
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_user_namespaces,
    pytest.mark.needs_command("newuidmap", "setpriv", "useradd"),
    pytest.mark.usefixtures("no_leaks"),
]

covers = pytest.mark.covers
FOREVER = ["sleep", "1000"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAPPINGS = [
    f".linux.{name}[].{key}" for name in ("uidMappings", "gidMappings") for key in ("containerID", "hostID", "size")
]


@pytest.fixture(scope="module")
def user(run_directory: Path) -> Iterator[User]:
    """A plain user with subordinate ids."""
    made = User(f"ctrtest{os.getpid()}c", run_directory / "home-of-config")
    yield made
    made.remove()


class Rootless(Runtime):
    """ctrun in somebody else's hands, with a run-time directory of theirs.

    Args:
        prefix: command line that becomes them.
        runtime_directory: of theirs.
        environment: further variables.
    """

    def __init__(self, prefix: list[str | Path], runtime_directory: Path, environment: dict[str, str]) -> None:
        super().__init__(Path(shutil.which(str(prefix[0])) or prefix[0]), runtime_directory / "ctrun")
        self.globals = [*map(str, prefix[1:]), str(runtime_under_test())]
        self.environment = {"PATH": PATH, "XDG_RUNTIME_DIR": str(runtime_directory), **environment}

    def __call__(self, *args: str | Path, **options: Any) -> Result:
        __tracebackhide__ = True
        options["env"] = {**self.environment, **(options.get("env") or {})}
        return super().__call__(*args, **options)

    def argv(self, *args: str | Path) -> list[str | Path]:
        """The whole command line of a verb."""
        return [self.path, *self.globals, *args]


@pytest.fixture
def theirs(user: User, directory: Path) -> Rootless:
    """ctrun run by the plain user."""
    place = directory / "run"
    place.mkdir(mode=0o700)
    user.own(place)
    ids = [f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--"]
    return Rootless(["setpriv", *ids], place, {"USER": user.name, "HOME": str(user.home)})


@pytest.fixture
def bundles(directory: Path, probing_rootfs: Path, user: User) -> Any:
    """Factory of bundles that belong to the user, with its own id mapped to root."""
    make = Bundles(directory, probing_rootfs)

    def new(*changes: Any, args: list[str]) -> Path:
        single = {
            "linux": {f"{kind}Mappings": [mapping(0, own, 1)] for kind, own in (("uid", user.uid), ("gid", user.gid))}
        }
        path = make(changed(single, *changes), args=args, rootless=True)
        user.own(path)
        return path

    return new


@pytest.fixture
def container(theirs: Rootless, container_id: str) -> Iterator[str]:
    """Id of a container of the user's, which is deleted at the end."""
    yield container_id
    end(_Environed(theirs), container_id)


class _Environed(Runtime):
    """The same runtime with its environment as part of the command line."""

    def __init__(self, runtime: Rootless) -> None:
        super().__init__(Path("env"), runtime.state_root)
        variables = [f"{name}={value}" for name, value in runtime.environment.items()]
        self.globals = [*variables, str(runtime.path), *runtime.globals]


def mapping(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


def first_subordinate(user: User, file: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{user.name}:"))
    return int(line.split(":")[1])


def several(user: User) -> dict[str, Any]:
    """Mappings of the user and of two ranges of its subordinate ids."""
    uid, gid = first_subordinate(user, "/etc/subuid"), first_subordinate(user, "/etc/subgid")
    return {
        "linux": {
            "uidMappings": [mapping(0, user.uid, 1), mapping(1, uid, 2000), mapping(5000, uid + 3000, 10)],
            "gidMappings": [mapping(0, user.gid, 1), mapping(1, gid + 100, 2000), mapping(5000, gid + 4000, 10)],
        }
    }


# -- maps


@covers(*MAPPINGS)
def test_several_mappings_are_written_by_the_tools(theirs: Rootless, bundles, container: str, user: User):
    mappings = several(user)["linux"]
    shown = "cat /proc/self/uid_map; echo; cat /proc/self/gid_map; echo; cat /proc/self/setgroups"
    parts = theirs("run", "-b", bundles(several(user), args=["sh", "-c", shown]), container).text.split("\n\n")
    for text, name in zip(parts, ("uidMappings", "gidMappings"), strict=False):
        assert [list(map(int, line.split())) for line in text.splitlines()] == [
            list(m.values()) for m in mappings[name]
        ]
    assert parts[2] == "allow"


@covers(*MAPPINGS)
def test_one_mapping_of_oneself_needs_no_tools_and_gives_up_setgroups(theirs: Rootless, bundles, container: str):
    path = bundles(args=["sh", "-c", "cat /proc/self/setgroups; id -u; cat /proc/self/uid_map"])
    result = theirs("run", "-b", path, container, env={"PATH": "/nowhere"})
    assert result.lines[:2] == ["deny", "0"]
    assert result.lines[2].split()[0::2] == ["0", "1"]


@covers(".process.user.uid", ".process.user.gid", ".process.user.additionalGids")
def test_a_user_of_the_container_is_a_subordinate_one_outside(
    theirs: Rootless, bundles, container: str, user: User, directory: Path
):
    shared = directory / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    change = {"process": {"user": {"uid": 1000, "gid": 5003, "additionalGids": [7]}}}
    script = ["sh", "-c", "touch /shared/file; id -u; id -g; id -G"]
    path = bundles(several(user), change, with_mounts(mount("/shared", "none", shared, "rbind")), args=script)
    assert theirs("run", "-b", path, container).lines == ["1000", "5003", "5003 7"]
    status = (shared / "file").stat()
    assert status.st_uid == first_subordinate(user, "/etc/subuid") + 999
    assert status.st_gid == first_subordinate(user, "/etc/subgid") + 4003


def test_additional_groups_need_more_than_one_mapping(theirs: Rootless, bundles, container: str):
    path = bundles({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [0]}}}, args=["true"])
    result = theirs("run", "-b", path, container)
    assert (result.code, "additional groups in a rootless container" in result.err) == (1, True)


def test_a_missing_tool_is_named(theirs: Rootless, bundles, container: str, user: User):
    result = theirs("run", "-b", bundles(several(user), args=["true"]), container, env={"PATH": "/nowhere"})
    assert (result.code, "newuidmap" in result.err) == (1, True)


def test_ids_that_are_not_the_user_s_are_refused_in_the_words_of_the_tool(
    theirs: Rootless, bundles, container: str, user: User
):
    change = {"linux": {"uidMappings": [mapping(0, user.uid, 1), mapping(1, 1, 10)]}}
    result = theirs("run", "-b", bundles(several(user), change, args=["true"]), container)
    assert result.code == 1
    assert "newuidmap" in result.err
    assert "not allowed" in result.err


def test_without_a_user_namespace_a_plain_user_s_container_is_refused(theirs: Rootless, bundles, container: str):
    change = {"linux": {"namespaces": namespaces("pid", "mount"), "uidMappings": None, "gidMappings": None}}
    result = theirs("run", "-b", bundles(change, {"hostname": None}, args=["true"]), container)
    assert (result.code, "rootless container requires user namespaces" in result.err) == (1, True)


# -- the life of a container


@covers("global --rootless", "global --root")
def test_the_state_is_in_the_run_time_directory_of_the_user(theirs: Rootless, bundles, container: str):
    theirs("create", "-b", bundles(args=FOREVER), container).ok()
    state = json.loads((theirs.state_root / container / "state.json").read_text())
    assert state["rootless"] is True
    # else it may be cleaned up while containers run (XDG Base Directory Specification)
    assert theirs.state_root.stat().st_mode & 0o7777 == 0o1700


def test_without_a_run_time_directory_the_root_s_is_tried_and_named(theirs: Rootless, bundles, container: str):
    result = theirs("run", "-b", bundles(args=["true"]), container, env={"XDG_RUNTIME_DIR": ""})
    assert result.code == 1
    assert "/run/ctrun" in result.err
    assert "permission denied" in result.err


@covers("verb create", "verb start", "verb state", "verb kill", "verb delete", "verb list")
def test_a_container_goes_through_its_states(theirs: Rootless, bundles, container: str):
    theirs("create", "-b", bundles(args=FOREVER), container).ok()
    assert theirs.status(container) == "created"
    theirs("start", container).ok()
    assert theirs.status(container) == "running"
    assert theirs("list", "-q").lines == [container]
    assert theirs("delete", container).code == 1
    theirs("kill", container, "KILL").ok()
    until("stopped", lambda: theirs.status(container) == "stopped")
    theirs("delete", container).ok()
    assert theirs.status(container) == ""
    assert not (theirs.state_root / container).exists()


def test_the_caller_s_root_sees_none_of_it(theirs: Rootless, bundles, container: str, ctrun: Runtime):
    theirs("create", "-b", bundles(args=FOREVER), container).ok()
    assert ctrun("state", container).code == 1


def test_the_exit_status_is_passed_on(theirs: Rootless, bundles, container: str):
    assert theirs("run", "-b", bundles(args=["sh", "-c", "exit 23"]), container).code == 23
    assert theirs.status(container) == ""


@pytest.mark.parametrize("mapped", ["one", "several"])
@covers("verb exec")
def test_exec_enters_all_namespaces(theirs: Rootless, bundles, container: str, user: User, mapped: str):
    path = bundles(several(user) if mapped == "several" else None, args=FOREVER)
    theirs("run", "-d", "-b", path, container).ok()
    pid = theirs.state(container)["pid"]
    names = ["mnt", "pid", "uts", "ipc", "user"]
    script = "for name; do readlink /proc/self/ns/$name; done"
    links = theirs("exec", container, "sh", "-c", script, "sh", *names).lines
    assert links == [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]
    assert theirs("exec", container, "id", "-u").text == "0"


@pytest.mark.parametrize("runs_as", [0, 1000])
@covers("verb exec")
def test_exec_enters_a_container_that_was_not_started_yet(
    theirs: Rootless, bundles, container: str, user: User, runs_as: int
):
    path = bundles(several(user), {"process": {"user": {"uid": runs_as, "gid": runs_as}}}, args=FOREVER)
    theirs("create", "-b", path, container).ok()
    pid = theirs.state(container)["pid"]
    names = ["mnt", "pid", "uts", "ipc", "user"]
    script = "for name; do readlink /proc/self/ns/$name; done"
    links = theirs("exec", container, "sh", "-c", script, "sh", *names).lines
    assert links == [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]
    with Terminal(*theirs.argv("exec", "-t", container, "tty"), env=theirs.environment) as screen:
        assert screen.wait() == 0
    assert screen.seen.strip() == "/dev/pts/0"
    assert theirs.status(container) == "created"
    theirs("start", container).ok()
    theirs("exec", container, "true").ok()


@pytest.mark.parametrize("capability", ["", "CAP_SYS_PTRACE"])
def test_who_enters_before_the_start_finds_no_way_out_of_the_process_that_waits(
    theirs: Rootless, bundles, container: str, capability: str
):
    """CVE-2016-9962: without the capability nothing of it can be looked into; with it there is nothing of the host."""
    theirs("create", "-b", bundles(args=FOREVER), container).ok()
    script = "readlink /proc/1/exe; for fd in /proc/1/fd/*; do readlink $fd; ls $fd/ $fd/..; done 2>/dev/null; true"
    flags = ["--cap", capability] if capability else []
    seen = theirs("exec", *flags, container, "sh", "-c", script).lines
    assert bool(seen) is bool(capability)
    # directories of the host have more in them than numbers, which is what a directory of fds has
    listed = [line for line in seen if line and not line.startswith("/") and ":[" not in line]
    assert [line for line in listed if not line.isdigit()] == []


def test_exec_as_another_user_of_the_container(theirs: Rootless, bundles, container: str, user: User):
    theirs("run", "-d", "-b", bundles(several(user), args=FOREVER), container).ok()
    flags = ("--user", "1000:5001", "--additional-gids", "3", "--cap", "CAP_KILL")
    found = parse_probe(theirs("exec", *flags, container, "probe").text)
    assert (found["uid"], found["gid"], found["groups"]) == ("1000", "5001", "3")


def test_exec_with_a_terminal(theirs: Rootless, bundles, container: str):
    theirs("run", "-d", "-b", bundles(args=FOREVER), container).ok()
    argv = theirs.argv("exec", "-t", container, "sh", "-c", "tty; stty size; exit 5")
    with Terminal(*argv, env=theirs.environment, rows=30, columns=99) as screen:
        assert screen.wait() == 5
    assert screen.seen.replace("\r", "") == "/dev/pts/0\n30 99\n"


def test_run_with_a_terminal(theirs: Rootless, bundles, container: str, user: User):
    script = ["sh", "-c", "tty; [ /dev/console -ef /dev/pts/0 ] && echo console; read word; echo got $word"]
    path = bundles(several(user), {"process": {"terminal": True}}, args=script)
    with Terminal(*theirs.argv("run", "-b", path, container), env=theirs.environment) as screen:
        screen.expect("/dev/pts/0")
        screen.expect("console")
        screen.type("hello\n")
        screen.expect("got hello")
        assert screen.wait() == 0


def test_a_detached_terminal_goes_to_its_socket(theirs: Rootless, bundles, container: str, directory: Path, user: User):
    path = bundles({"process": {"terminal": True}}, args=["sh", "-c", "tty; exec sleep 1000"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "console"))
        os.chown(directory / "console", user.uid, user.gid)
        server.listen(1)
        theirs("run", "-d", "-b", path, "--console-socket", directory / "console", container).ok()
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    with os.fdopen(array.array("i", ancillary[0][2])[0], "rb", buffering=0) as master:
        seen = b""
        while not seen.endswith(b"\n"):
            seen += master.read(100)
    assert seen == b"/dev/pts/0\r\n"


def test_a_detached_run_goes_on_alone(theirs: Rootless, bundles, container: str, directory: Path, user: User):
    user.own(directory / "run")
    theirs("run", "-d", "--pid-file", directory / "run/pid", "-b", bundles(args=FOREVER), container).ok()
    pid = int((directory / "run/pid").read_text())
    assert theirs.state(container)["pid"] == pid
    assert Path(f"/proc/{pid}").stat().st_uid == user.uid
    theirs("delete", "--force", container).ok()
    assert not Path(f"/proc/{pid}/exe").exists()


@covers(".process.oomScoreAdj", ".linux.sysctl", ".hostname", ".linux.maskedPaths")
def test_what_a_plain_user_may_set_is_set(theirs: Rootless, bundles, container: str):
    kinds = namespaces("pid", "ipc", "uts", "mount", "user", "network")
    change = {
        "hostname": "of-the-user",
        "process": {"oomScoreAdj": 400, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]},
        "linux": {"namespaces": kinds, "sysctl": {"kernel.msgmax": "4321", "net.ipv4.ip_default_ttl": "77"}},
    }
    script = (
        "hostname; cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl; ulimit -n"
    )
    path = bundles(change, args=["sh", "-c", script])
    assert theirs("run", "-b", path, container).lines == ["of-the-user", "400", "4321", "77", "50"]


# -- cgroups


@pytest.mark.needs_cgroup_v1
@covers("global --rootless", ".linux.resources.pids.limit")
def test_limits_that_can_not_be_set_are_not_passed_over(theirs: Rootless, bundles, container: str):
    path = bundles({"linux": {"resources": {"pids": {"limit": 5}}}}, args=["true"])
    result = theirs("run", "-b", path, container)
    assert result.code == 1
    assert "cannot set pids limit: container could not join or create cgroup" in result.err


@pytest.mark.needs_cgroup_v1
@covers("global --rootless")
@pytest.mark.parametrize(("choice", "works"), [("auto", True), ("true", True), ("false", False)])
def test_a_plain_user_does_without_cgroups_unless_told_otherwise(
    theirs: Rootless, bundles, container: str, choice: str, works: bool
):
    result = theirs("--rootless", choice, "run", "-b", bundles(args=["echo", "ran"]), container)
    assert (result.code, result.out) == ((0, "ran\n") if works else (1, ""))
    if not works:
        assert "permission denied" in result.err


@pytest.mark.needs_cgroup_v1
def test_verbs_that_need_a_cgroup_say_so(theirs: Rootless, bundles, container: str):
    theirs("run", "-d", "-b", bundles(args=FOREVER), container).ok()
    for words in (["pause"], ["ps"], ["kill", "--all"]):
        result = theirs(*words, container)
        assert (result.code, "cgroup" in result.err) == (1, True), repr(result)


# -- root of a user namespace (runc-in-userns)


@contextmanager
def root_elsewhere(directory: Path, more: tuple[str, ...] = ()) -> Iterator[Rootless]:
    """ctrun run by root of a user namespace whose ids are nobody's outside."""
    place = directory / "elsewhere"
    place.mkdir(mode=0o700)
    os.chown(place, 100000, 100000)
    with held_namespaces("--user", *more) as pid:
        for file in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{file}").write_text("0 100000 65536\n")
        prefix = ["nsenter", f"--target={pid}", "--user", *more, "--setuid=0", "--setgid=0", "--"]
        yield Rootless([*prefix], place, {"USER": "somebody"})


def owned_by_them(path: Path) -> Path:
    for directory, names, files in os.walk(path):
        for name in [".", *names, *files]:
            os.chown(os.path.join(directory, name), 100000, 100000, follow_symlinks=False)
    return path


def without_limits(config: Config) -> None:
    """The usual configuration, with a namespace for cgroups to be shown at all."""
    del config["linux"]["resources"]


@covers("global --rootless")
@pytest.mark.parametrize("more", [(), ("--mount",)], ids=["", "own-mounts"])
def test_root_of_a_user_namespace_runs_an_ordinary_configuration(
    directory: Path, probing_rootfs: Path, container_id: str, more: tuple[str, ...]
):
    script = "id -u; cat /proc/self/uid_map; hostname; ls /dev/null /sys/class/net"
    path = Bundles(directory, probing_rootfs)(without_limits, args=["sh", "-c", script])
    with root_elsewhere(directory, more) as root:
        lines = root("run", "-b", owned_by_them(path), container_id).lines
    assert [lines[0], lines[1].split(), lines[2]] == ["0", ["0", "100000", "65536"], "testhost"]
    assert lines[3:] == ["/dev/null", "/sys/class/net:", "lo"] or lines[3] == "/dev/null"


@covers("global --rootless", "verb exec")
def test_root_of_a_user_namespace_lives_with_its_containers(directory: Path, probing_rootfs: Path, container_id: str):
    path = Bundles(directory, probing_rootfs)(without_limits, args=FOREVER)
    with root_elsewhere(directory) as root:
        root("create", "-b", owned_by_them(path), container_id).ok()
        state = json.loads((root.state_root / container_id / "state.json").read_text())
        # root here, so the container shares the user namespace; but without full access to cgroups
        assert state["rootless"] is False
        assert os.readlink(f"/proc/{state['init_process_pid']}/ns/user") != os.readlink("/proc/self/ns/user")
        root("start", container_id).ok()
        assert root("exec", "--user", "1000:1000", container_id, "id", "-u").text == "1000"
        assert root("--rootless", "false", "run", "-b", path, f"{container_id}x").code == 1
        root("delete", "--force", container_id).ok()
        assert root.status(container_id) == ""


def test_groups_of_a_root_of_a_user_namespace_can_be_set(directory: Path, probing_rootfs: Path, container_id: str):
    change = changed(without_limits, {"process": {"user": {"uid": 5, "gid": 6, "additionalGids": [7, 8]}}})
    path = Bundles(directory, probing_rootfs)(change, args=["id", "-G"])
    with root_elsewhere(directory) as root:
        assert root("run", "-b", owned_by_them(path), container_id).text == "6 7 8"


def test_a_user_namespace_inside_of_one_has_mappings_of_that_one(
    directory: Path, probing_rootfs: Path, container_id: str
):
    mappings = [mapping(0, 0, 1), mapping(1, 2000, 100)]
    change = {
        "linux": {
            "namespaces": namespaces("pid", "network", "ipc", "uts", "mount", "user"),
            "uidMappings": mappings,
            "gidMappings": mappings,
        }
    }
    path = Bundles(directory, probing_rootfs)(changed(without_limits, change), args=["cat", "/proc/self/uid_map"])
    with root_elsewhere(directory) as root:
        lines = root("run", "-b", owned_by_them(path), container_id).lines
    # as seen from inside, the parent namespace is theirs
    assert [list(map(int, line.split())) for line in lines] == [[0, 0, 1], [1, 2000, 100]]


@pytest.mark.needs_cgroup_v1
@covers("global --rootless")
def test_root_of_the_host_may_be_told_to_do_without_cgroups(
    ctrun: Runtime, directory: Path, probing_rootfs: Path, container_id: str
):
    path = Bundles(directory, probing_rootfs)(without_limits, args=["echo", "ran"])
    # the hierarchies as mountinfo tells of them are there, and nothing can be made in them
    script = 'mount -t tmpfs -o ro none /sys/fs/cgroup; exec "$@"'
    private = Runtime(Path("unshare"))
    argv = ("--mount", "--propagation", "private", "sh", "-c", script, "sh", ctrun.path)
    told = private(*argv, "--rootless", "true", "run", "-b", path, container_id)
    assert (told.code, told.out) == (0, "ran\n"), repr(told)
    refused = private(*argv, "run", "-b", path, container_id)
    assert (refused.code, "read-only file system" in refused.err) == (1, True)


def test_the_user_has_its_groups_back_from_the_map(theirs: Rootless, bundles, container: str, user: User):
    # a group of the user's that is not mapped shows as the overflow group, and can't be given up
    assert grp.getgrgid(user.gid).gr_name == user.name
    assert theirs("run", "-b", bundles(args=["id", "-g"]), container).text == "0"
