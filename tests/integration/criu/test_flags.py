"""Flags that say how CRIU is to go about it, and command lines that are wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.criu.conftest import Restorable
from tests.support.bundles import Config
from tests.support.command import run
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]
APPARMOR = Path("/sys/kernel/security/apparmor")

covers = pytest.mark.covers


@covers("checkpoint --manage-cgroups-mode", "restore --manage-cgroups-mode")
@pytest.mark.parametrize("mode", ["soft", "full", "strict", "ignore"])
def test_cgroups_are_handled_in_the_mode_that_is_asked_for(box: Restorable, mode: str) -> None:
    box.count().counts()
    box.checkpoint("--manage-cgroups-mode", mode).ok()
    # A cgroup that is there already is what strict is about.
    box.restore("--manage-cgroups-mode", "soft" if mode == "strict" else mode).ok()
    box.counts()
    box.end()


@covers("checkpoint --auto-dedup", "restore --auto-dedup", "restore --no-pivot")
def test_flags_that_change_nothing_here_are_taken(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint("--auto-dedup").ok()
    box.restore("--auto-dedup", "--no-pivot").ok()
    box.counts()
    box.end()


@covers("checkpoint --ext-unix-sk", "restore --ext-unix-sk")
def test_datagrams_to_a_unix_socket_outside_go_on(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint("--ext-unix-sk").ok()
    box.restore("--ext-unix-sk").ok()
    box.counts()
    box.end()


@covers("restore --lsm-profile")
@pytest.mark.skipif(APPARMOR.exists(), reason="needs a host without AppArmor")
def test_criu_refuses_a_profile_of_a_security_module_that_is_not_there(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint().ok()
    result = box.restore("--lsm-profile", "apparmor:wanted")
    assert result.code == 1
    assert "apparmor LSM specified but apparmor not supported by kernel" in result.err


def confined_by(profile: str) -> Callable[[Config], None]:
    """A configuration with an AppArmor profile."""

    def change(config: Config) -> None:
        config["process"]["apparmorProfile"] = profile

    return change


@covers("restore --lsm-profile")
@pytest.mark.needs_apparmor
def test_a_profile_of_the_security_module_is_put_in_place_of_the_dumped_one(
    box: Restorable, apparmor_profile: str, apparmor_other_profile: str
) -> None:
    box.count(confined_by(apparmor_profile)).counts()
    box.checkpoint().ok()
    box.restore("--lsm-profile", f"apparmor:{apparmor_other_profile}").ok()
    assert Path(f"/proc/{box.pid}/attr/current").read_text().startswith(f"{apparmor_other_profile} (")
    box.counts()
    box.end()


@pytest.mark.needs_apparmor
def test_a_container_is_restored_under_the_profile_that_it_had(box: Restorable, apparmor_profile: str) -> None:
    box.count(confined_by(apparmor_profile)).counts()
    box.checkpoint().ok()
    box.restore().ok()
    assert Path(f"/proc/{box.pid}/attr/current").read_text().startswith(f"{apparmor_profile} (")
    box.end()


@covers("restore --lsm-profile")
@pytest.mark.needs_apparmor
def test_a_container_that_was_unconfined_does_not_go_on_without_the_profile_that_was_asked_for(
    box: Restorable, apparmor_profile: str
) -> None:
    box.count().counts()
    box.checkpoint().ok()
    result = box.restore("--lsm-profile", f"apparmor:{apparmor_profile}")
    assert result.code == 1
    assert f"is under the apparmor profile unconfined, not {apparmor_profile}" in result.err
    assert box.status == ""


@covers("restore --lsm-mount-context")
def test_a_mount_context_is_told_to_criu(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint().ok()
    result = box.restore("--lsm-mount-context", "system_u:object_r:container_file_t:s0")
    # Without SELinux the kernel knows no such option of a mount, or CRIU leaves it out.
    assert result.code == 0 or "criu failed: type RESTORE" in result.err
    if result.code == 0:
        box.end()


WRONG = {
    ("--parent-path", "/abs"): "--parent-path must be relative",
    ("--parent-path", "../nope"): "invalid --parent-path: stat ",
    ("--page-server", "here"): "Use --page-server ADDRESS:PORT to specify page server",
    ("--page-server", "127.0.0.1:x"): "Invalid port number",
    ("--manage-cgroups-mode", "bad"): "Invalid manage cgroups mode",
    ("--empty-ns", "bad"): 'namespace \\"bad\\" is not supported',
    ("--network-lock", "bad"): 'invalid --network-lock \\"bad\\": expected iptables, nftables or skip',
    ("--ghost-limit", "bad"): "invalid --ghost-limit bad",
    ("--ghost-limit", "8G"): "invalid --ghost-limit 8G: expected 1 to 4294967295 bytes",
    ("--lazy-pages", "--status-fd", "77"): "invalid --status-fd argument 77: bad file descriptor",
    ("--format", "xml"): "invalid format option: xml",
}
# What 1.1.5 says differently: it has no such flag, resolves the path first, or fails twice.
UNLIKE_RUNC = ("--network-lock", "--ghost-limit", "--format", "--empty-ns", "--lazy-pages")


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_a_wrong_flag_is_told_before_anything_is_done(box: Restorable, flags: tuple[str, ...]) -> None:
    box.count()
    result = box.checkpoint(*flags)
    assert result.code == 1
    assert WRONG[flags] in result.err
    assert not box.images.exists()
    assert box.status == "running"
    box.end()


@pytest.mark.needs_runc
@pytest.mark.parametrize("flags", [flags for flags in WRONG if flags[0] not in UNLIKE_RUNC], ids=" ".join)
def test_wrong_flags_are_told_in_the_words_of_runc(
    box: Restorable, runc: Runtime, flags: tuple[str, ...], new_container_id: Callable[[], str]
) -> None:
    def message(err: str) -> str:
        found = re.search(r'msg="((?:[^"\\]|\\.)*)"', err)
        assert found is not None, err
        return re.sub(r"stat \S+:", "stat PATH:", found.group(1))

    box.bundle = box.bundles(args=["sleep", "1000"])
    # Not the same one: two runtimes in one cgroup would get in each other's way.
    other = new_container_id()
    for runtime, name in ((box.ctrun, box.container_id), (runc, other)):
        created = [runtime.path, *runtime.globals, "create", "-b", box.bundle, name]
        subprocess.run(created, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=30)
        runtime("start", name).ok()
    theirs = runc(*box.criu, "checkpoint", "--image-path", box.images, *flags, other)
    ours = box.ctrun(*box.criu, "checkpoint", "--image-path", box.images, *flags, box.container_id)
    assert (ours.code, message(ours.err)) == (theirs.code, message(theirs.err))
    runc("delete", "-f", other).ok()
    box.end()


def test_an_unknown_container_is_told_before_anything_else(ctrun: Runtime, directory: Path) -> None:
    result = ctrun("checkpoint", "--image-path", directory / "images", "--page-server", "wrong", "ctrtest-nosuch")
    assert result.code == 1
    assert "container does not exist" in result.err
    assert not (directory / "images").exists()


def test_a_terminal_shows_progress_and_figures(box: Restorable) -> None:
    box.count().counts()
    argv = [box.ctrun.path, *box.ctrun.globals, *box.criu, "checkpoint", "--image-path", box.images, box.container_id]
    with Terminal(*argv) as terminal:
        assert terminal.wait(60) == 0
    assert "checkpoint: dumping" in terminal.seen
    assert re.search(r"checkpoint: [\d.]+ [KM]iB, \d+ pages, frozen for \d+ ms", terminal.seen)


@pytest.mark.needs_command("musl-gcc")
def test_a_configuration_file_for_criu_is_named_by_an_annotation(
    holding: Callable[..., Restorable], directory: Path
) -> None:
    file = directory / "criu.conf"
    file.write_text("file-locks\n")

    def annotate(config: Config) -> None:
        config["annotations"] = {"org.criu.config": str(file)}

    box = holding("lock", "/dev/shm/file", mutate=annotate)
    box.checkpoint().ok()
    box.restore().ok()
    box.end()


@covers("checkpoint --help", "restore --help")
@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_the_help_tells_what_the_verb_does(ctrun: Runtime, verb: str) -> None:
    text = ctrun(verb, "--help").text
    assert text.startswith(f"NAME:\n   ctrun {verb} - ")
    assert "--image-path value" in text


def test_a_checkpoint_of_runc_is_restored(box: Restorable, runc: Runtime) -> None:
    box.bundle = box.bundles(args=["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; done"])
    null = subprocess.DEVNULL
    created = [runc.path, *runc.globals, "run", "-d", "-b", box.bundle, box.container_id]
    subprocess.run(created, stdin=null, stdout=null, stderr=null, check=True, timeout=30)
    where = ["--image-path", box.images, "--work-path", box.work]
    runc(*box.criu, "checkpoint", *where, box.container_id, timeout=60).ok()
    box.restore().ok()
    box.counts()
    box.checkpoint().ok()
    assert json.loads((box.images / "descriptors.json").read_text()) == ["/dev/null"] * 3


@pytest.mark.needs_direct
def test_the_bridge_runs_by_hand(box: Restorable, ctrun: Runtime) -> None:
    bridge = ctrun.path.parent / "ctr-criu-bridge"
    text = run(bridge, "version", *box.criu).text
    assert re.match(r"\d+\.\d+", text)
    found = json.loads(run(bridge, "features", "--format", "json", *box.criu).text)
    assert set(found) == {"mem_track", "lazy_pages", "pidfd_store"}
    assert "works with this kernel" in run(bridge, "check", *box.criu).text
    box.count()
    box.checkpoint().ok()
    assert run(bridge, "log-errors", box.work / "dump.log").text == ""
    assert run(bridge, "version", "--criu", "/no/such").code == 1
    assert all(len(line) <= 80 for line in run(bridge, "dump", "--help").lines)
    assert os.access(bridge, os.X_OK)
