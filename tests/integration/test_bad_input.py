"""Input that can't work: one clear line, exit status 1, and nothing left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]

Config = dict[str, Any]


def setting(*path: Any) -> Callable[[Config], None]:
    """A mutator that sets the place named by all but the last of `path` to the last."""

    def change(config: Config) -> None:
        *place, key, value = path
        target: Any = config
        for step in place:
            target = target[step]
        target[key] = value

    return change


def adding(*path: Any) -> Callable[[Config], None]:
    """A mutator that appends the last of `path` to the list at the place that the others name."""

    def change(config: Config) -> None:
        *place, value = path
        target: Any = config
        for step in place:
            target = target[step]
        target.append(value)

    return change


CASES: dict[str, tuple[Callable[[Config], None], str]] = {
    "wrong type": (setting("process", "args", ["true", 7]), ".process.args[1]"),
    "args no list": (setting("process", "args", "true"), ".process.args"),
    "no args": (setting("process", "args", []), "args"),
    "relative cwd": (setting("process", "cwd", "tmp"), "ust be an absolute path"),
    "unknown namespace": (adding("linux", "namespaces", {"type": "quantum"}), "quantum"),
    "duplicate namespace": (adding("linux", "namespaces", {"type": "pid"}), "duplicated"),
    "missing namespace path": (setting("linux", "namespaces", 1, {"type": "network", "path": "/no/ns"}), "/no/ns"),
    "missing rootfs": (setting("root", "path", "nowhere"), "nowhere"),
    "missing mount source": (
        adding("mounts", {"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
        "/no/such/source",
    ),
    "unknown filesystem": (adding("mounts", {"destination": "/x", "type": "nofs", "source": "x"}), "nofs"),
    "bad mount data": (
        adding("mounts", {"destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]}),
        "/tmp",
    ),
    "hostname without uts": (
        lambda config: config["linux"].update(
            namespaces=[n for n in config["linux"]["namespaces"] if n["type"] != "uts"]
        ),
        "private UTS namespace",
    ),
    "foreign sysctl": (setting("linux", "sysctl", {"vm.swappiness": "1"}), "vm.swappiness"),
    "missing executable": (setting("process", "args", ["/no/such"]), "/no/such"),
    "executable not on PATH": (setting("process", "args", ["nosuch"]), "executable file not found in $PATH"),
    "executable without x": (setting("process", "args", ["/etc/passwd"]), "permission denied"),
    "rlimit unknown": (setting("process", "rlimits", [{"type": "RLIMIT_X", "hard": 1, "soft": 1}]), "RLIMIT_X"),
    "memory limit of an unknown kind": (setting("linux", "resources", "memory", {"limit": "1G"}), ".memory.limit"),
    "cgroup of unified": (setting("linux", "resources", "unified", {"memory.max": 5}), ".unified"),
    "seccomp action": (setting("linux", "seccomp", {"defaultAction": "SCMP_ACT_PERHAPS"}), "SCMP_ACT_PERHAPS"),
    "hook path relative": (setting("hooks", {"prestart": [{"path": "hook"}]}), ".hooks.prestart[0]"),
    "hook missing": (setting("hooks", {"prestart": [{"path": "/no/hook"}]}), "/no/hook"),
    "terminal without socket": (setting("process", "terminal", True), "console socket"),
    "user unmapped": (
        lambda config: (
            config["linux"]["namespaces"].append({"type": "user"}),
            config["linux"].update(
                uidMappings=[{"containerID": 0, "hostID": 100000, "size": 10}],
                gidMappings=[{"containerID": 0, "hostID": 100000, "size": 10}],
            ),
            config["process"]["user"].update(uid=5000),
        ),
        "5000",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_configuration_is_refused_with_its_place(
    ctrun: Runtime, bundle: Bundles, container_id: str, case: str
) -> None:
    change, place = CASES[case]
    result = ctrun("create", "-b", bundle(change), container_id)
    assert result.code == 1, result
    assert place in result.err
    assert result.err.count("\n") == 1, result.err
    assert ctrun.status(container_id) == ""


@pytest.mark.parametrize(
    ("text", "place"), [("{", "line 1"), ('{"a": 1}}', "line 1"), ("[]", "object"), ("", "line 1"), ("\xff", "config")]
)
def test_wrong_json_is_refused_with_line_and_column(
    ctrun: Runtime, bundle: Bundles, container_id: str, text: str, place: str
) -> None:
    path = bundle()
    (path / "config.json").write_bytes(text.encode("latin-1"))
    result = ctrun("run", "-b", path, container_id)
    assert result.code == 1
    assert place in result.err
    assert "config.json" in result.err


def test_a_missing_configuration_is_told_in_runcs_words(ctrun: Runtime, directory: Path, container_id: str) -> None:
    result = ctrun("run", "-b", directory, container_id)
    assert (result.code, "JSON specification file config.json not found" in result.err) == (1, True)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "ä"])
def test_an_id_that_is_none_is_refused(ctrun: Runtime, bundle: Bundles, name: str) -> None:
    result = ctrun("run", "-b", bundle(), name)
    assert (result.code, "invalid container ID format" in result.err) == (1, True)


def test_an_id_that_exists_is_refused_and_the_container_left_alone(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    ctrun("create", "-b", bundle(), container_id).ok()
    result = ctrun("create", "-b", bundle(), container_id)
    assert (result.code, "container with given ID already exists" in result.err) == (1, True)
    assert ctrun.status(container_id) == "created"
    ctrun("delete", container_id).ok()


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "kill", "exec"])
def test_a_verb_on_a_stopped_container_is_refused(
    ctrun: Runtime, bundle: Bundles, container_id: str, verb: str
) -> None:
    ctrun("run", "--keep", "-b", bundle(), container_id).ok()
    arguments = ["true"] if verb == "exec" else []
    result = ctrun(verb, container_id, *arguments)
    assert result.code == (255 if verb == "exec" else 1)
    assert result.err.count("\n") == 1
    ctrun("delete", container_id).ok()


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "kill", "exec", "state", "ps", "delete"])
def test_a_verb_on_no_container_is_refused(ctrun: Runtime, verb: str) -> None:
    arguments = ["true"] if verb == "exec" else []
    result = ctrun(verb, "ctrtest-none", *arguments)
    assert (result.code, "container does not exist" in result.err) == (255 if verb == "exec" else 1, True)


def test_unknown_properties_are_accepted(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    def change(config: Config) -> None:
        config["future"] = {"x": [1]}
        config["linux"]["future"] = True
        config["process"]["user"]["future"] = None

    ctrun("run", "-b", bundle(change), container_id).ok()


def test_all_that_is_wrong_is_told_at_once_each_with_its_place(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    wrong: dict[str, tuple[Any, ...]] = {
        ".ociVersion": ("ociVersion", "9.0"),
        ".process.cwd": ("process", "cwd", "relative"),
        ".process.args": ("process", "args", []),
        ".process.rlimits[0].type": ("process", "rlimits", [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]),
        ".linux.rootfsPropagation": ("linux", "rootfsPropagation", "odd"),
        ".linux.seccomp.defaultAction": ("linux", "seccomp", {"defaultAction": "SCMP_ACT_NONE"}),
        ".linux.sysctl": ("linux", "sysctl", {"kernel.hostname": "other"}),
        ".hooks.prestart[0].path": ("hooks", {"prestart": [{"path": "relative"}]}),
    }

    def change(config: Config) -> None:
        for place in wrong.values():
            setting(*place)(config)

    result = ctrun("run", "-b", bundle(change), container_id)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert [place for place in wrong if place not in result.err] == []
