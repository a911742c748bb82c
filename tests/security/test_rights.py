"""At no moment runs anything of the image's with more rights than the configuration gives its process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.security.hostile import FOREVER, changed, end, plain, running, with_hook
from tests.support.bundles import Bundles, Config, Mutator
from tests.support.command import run
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

RIGHTS = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"]


def with_seccomp(config: Config) -> None:
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}],
    }


def as_user(config: Config) -> None:
    config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [2000]}


def with_new_privileges(allowed: bool) -> Mutator:
    def mutate(config: Config) -> None:
        config["process"]["noNewPrivileges"] = not allowed

    return mutate


def with_image_hook(config: Config) -> None:
    config["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/status >/tmp/hook"]}],
    }


def rights(status: str) -> dict[str, list[str]]:
    """What a /proc/PID/status says about rights."""
    found = (line.split() for line in status.splitlines())
    return {words[0][:-1]: words[1:] for words in found if words[0][:-1] in RIGHTS}


@pytest.mark.parametrize("new_privileges", [True, False])
def test_a_start_container_hook_has_the_rights_of_the_process(
    ctrun: Runtime, bundle: Bundles, container_id: str, new_privileges: bool
):
    """Its path is looked up in the image, so it is the image's program."""
    made = bundle(
        changed(plain, with_seccomp, as_user, with_new_privileges(new_privileges), with_image_hook),
        args=["cat", "/proc/self/status"],
        writable=True,
    )
    (made / "rootfs/tmp").chmod(0o777)
    process = rights(ctrun("run", "-b", made, container_id).ok().out)
    assert process["Uid"] == ["1000"] * 4
    assert process["Seccomp"] == ["2"]
    assert process["Groups"] == ["2000"]
    assert rights((made / "rootfs/tmp/hook").read_text()) == process


def test_exec_has_the_rights_of_the_process(ctrun: Runtime, bundle: Bundles, container_id: str):
    with running(ctrun, bundle(changed(plain, with_seccomp, as_user), args=FOREVER), container_id) as state:
        entered = rights(ctrun("exec", container_id, "cat", "/proc/self/status").ok().out)
        process = rights(Path(f"/proc/{state['pid']}/status").read_text())
    assert entered == process


@pytest.mark.parametrize("umask", ["0000", "0077"])
def test_files_do_not_become_writable_for_all_because_of_the_callers_umask(
    ctrun: Runtime, bundle: Bundles, container_id: str, umask: str
):
    """0022 is what runc gives a container whose configuration names none."""
    made = bundle(plain, args=["sh", "-c", "umask"])
    words = [str(ctrun.path), *ctrun.globals, "run", "-b", made, container_id]
    assert run("sh", "-c", f'umask {umask}; exec "$@"', "sh", *words).text == "0022"


@pytest.mark.parametrize("name", ["pid", ".pid"])
def test_a_pid_file_is_not_written_through_a_symlink(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, name: str
):
    """In a directory that others can write to, as /tmp, the name of the half-written file can be foreseen."""
    (directory / "precious").write_text("precious")
    (directory / name).symlink_to(directory / "precious")
    ctrun("run", "--pid-file", directory / "pid", "-b", bundle(plain), container_id)
    assert (directory / "precious").read_text() == "precious"


def test_a_file_that_the_caller_lets_the_container_read_stays_the_callers(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    """As its owner the container could open /proc/self/fd/0 anew, for writing."""
    file = directory / "input"
    file.write_text("text")
    made = bundle(changed(plain, as_user), args=["cat"])
    words = [str(ctrun.path), *ctrun.globals, "run", "-b", made, container_id]
    assert run("sh", "-c", 'file=$1; shift; exec "$@" <$file', "sh", file, *words).text == "text"
    assert file.stat().st_uid == os.getuid()


def test_the_state_is_closed_to_others(ctrun: Runtime, bundle: Bundles, container_id: str):
    with running(ctrun, bundle(plain, args=FOREVER), container_id):
        directory = ctrun.state_root / container_id
        assert ctrun.state_root.stat().st_mode & 0o077 == 0
        for path in directory.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


def test_what_runtime_hooks_get_on_stdin_is_what_the_configuration_says(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    """Annotations come from users: they are data, however they look."""
    hostile = {'a"; touch /tmp/x; "': "$(id)\n`id`\x1b[2J", "pid": "1", "io.test/é": "\u2028"}

    def mutate(config: Config) -> None:
        plain(config)
        config["annotations"] = hostile

    made = bundle(changed(mutate, with_hook("createRuntime", f"cat >{directory}/state")))
    ctrun("run", "-b", made, container_id).ok()
    state = json.loads((directory / "state").read_text())
    assert state["annotations"] == hostile
    assert state["id"] == container_id
    assert state["pid"] != 1


@pytest.mark.parametrize("path", ["../../../escape", "/../../escape", "/a/../../../escape"])
def test_a_cgroup_path_stays_in_its_hierarchy(ctrun: Runtime, bundle: Bundles, container_id: str, path: str):
    name = f"{container_id}-escape"

    def mutate(config: Config) -> None:
        plain(config)
        config["linux"]["cgroupsPath"] = path.replace("escape", name)

    found = ctrun("run", "-b", bundle(mutate, args=["cat", "/proc/self/cgroup"]), container_id)
    paths = {line.split(":", 2)[2] for line in found.lines if name in line}
    assert paths
    assert all(".." not in text for text in paths)
    assert not os.path.exists(f"/{name}")


@pytest.mark.parametrize(
    "cgroup",
    [
        "..",
        "/../other",
        pytest.param("pids:..", marks=pytest.mark.needs_cgroup_v1),
        pytest.param("devices:/../../", marks=pytest.mark.needs_cgroup_v1),
    ],
)
def test_exec_does_not_leave_the_containers_cgroups(ctrun: Runtime, bundle: Bundles, container_id: str, cgroup: str):
    with running(ctrun, bundle(plain, args=FOREVER), container_id):
        result = ctrun("exec", "--cgroup", cgroup, container_id, "true")
    assert result.code != 0
    assert "is not a sub cgroup path" in result.err


@pytest.mark.parametrize(
    ("instead", "verb"),
    [
        ("fifo", "run"),
        ("fifo", "exec"),
        ("kernel log", "run"),
        ("kernel log", "exec"),
        ("endless", "run"),
        ("huge", "exec"),
        ("directory", "run"),
        ("no symlink's end", "exec"),
    ],
)
def test_a_hostile_user_database_neither_holds_up_nor_misleads(
    ctrun: Runtime, bundle: Bundles, container_id: str, instead: str, verb: str
):
    made = bundle(plain, args=["sh", "-c", "echo $HOME"] if verb == "run" else FOREVER)
    file = made / "rootfs/etc/passwd"
    file.unlink()
    if instead == "fifo":
        os.mkfifo(file)
    elif instead == "huge":
        file.touch()
        os.truncate(file, 1 << 40)
    elif instead == "directory":
        file.mkdir()
    else:
        targets = {"kernel log": "/proc/kmsg", "endless": "/dev/zero", "no symlink's end": "passwd"}
        file.symlink_to(targets[instead])
    if verb == "run":
        result = ctrun("run", "-b", made, container_id, timeout=10)
    else:
        with running(ctrun, made, container_id):
            result = ctrun("exec", container_id, "sh", "-c", "echo $HOME", timeout=10)
    assert result.text == "/"


def test_cgroups_that_are_too_deep_for_a_path_hide_no_process_and_are_removed(
    ctrun: Runtime, bundle: Bundles, container_id: str
):
    """A container to which its cgroups were given can make them, each from the one above."""
    ctrun("run", "-d", "-b", bundle(plain, args=FOREVER), container_id).ok()
    ctrun("exec", "-d", container_id, *FOREVER).ok()
    state = json.loads(Path(ctrun.state_root, container_id, "state.json").read_text())
    paths = state["cgroup_paths"]
    pids = json.loads(ctrun("ps", "--format", "json", container_id).text)
    (other,) = set(pids) - {state["init_process_pid"]}
    name = "a" * 250
    directory = os.open(paths.get("devices") or paths[""], os.O_DIRECTORY)
    for _ in range(4096 // len(name) + 1):
        os.mkdir(name, dir_fd=directory)
        lower = os.open(name, os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = lower
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=directory)
    os.write(procs, str(other).encode())
    os.close(procs)
    os.close(directory)
    assert sorted(json.loads(ctrun("ps", "--format", "json", container_id).text)) == sorted(pids)
    ctrun("kill", "--all", container_id, "KILL").ok()
    end(ctrun, container_id)
    assert [path for path in paths.values() if os.path.exists(path)] == []
