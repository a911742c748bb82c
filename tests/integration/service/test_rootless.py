"""A supervisor of a plain user, at that user's own socket."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import make_rootfs, rootless_config
from tests.support.command import Result, run
from tests.support.runtime import ROOT
from tests.support.supervised import PROGRAM, Supervisor
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_busybox,
    pytest.mark.needs_user_namespaces,
    pytest.mark.needs_command("setpriv"),
]

USER, STRANGER = 54_321, 54_322


def become(uid: int) -> list[str]:
    """The beginning of a command line that somebody else runs."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


class Own(Supervisor):
    """A supervisor without flags: all that it needs to know is in XDG_RUNTIME_DIR."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.place = directory / "run"
        self.place.mkdir(mode=0o700)
        self.bundle = directory / "bundle"
        self.root = self.place / "ctrun"
        self.socket = self.root / "supervisor.sock"
        self.env = {"XDG_RUNTIME_DIR": str(self.place), "PATH": os.environ["PATH"]}

    @property
    def argv(self) -> list[str | Path]:
        return [PROGRAM]

    def ctrun(self, *words: str | Path, uid: int = USER) -> Result:
        """A command of that user or of another one."""
        return run(*become(uid), ROOT / "bin/ctrun", *words, env=self.env, cwd=self.bundle)


@pytest.fixture
def own(directory: Path) -> Iterator[Own]:
    """Serves USER, who has a bundle too."""
    made = Own(directory)
    made.bundle.mkdir()
    make_rootfs(made.bundle / "rootfs")
    for path in [made.place, made.bundle, *made.bundle.rglob("*")]:
        os.chown(path, USER, USER, follow_symlinks=False)
    made.start(env=made.env, wrapper=become(USER))
    yield made
    for name in ("one", "two"):
        if (made.root / name).exists():
            made.ctrun("delete", "--force", name)
    made.stop()


def configure(own: Own, *args: str) -> None:
    config = rootless_config()
    config["process"]["args"] = list(args)
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind][0]["hostID"] = USER
    (own.bundle / "config.json").write_text(json.dumps(config))


def test_commands_of_its_user_are_served(own: Own) -> None:
    configure(own, "sh", "-c", "id -u; exit 7")
    result = own.ctrun("--supervisor", "run", "one")
    assert (result.code, result.out, result.err) == (7, "0\n", "")
    configure(own, "sleep", "1000")
    # Its output is held by the container.
    detached = [*become(USER), str(ROOT / "bin/ctrun"), "--supervisor", "run", "-d", "one"]
    subprocess.run(
        detached, env=own.env, cwd=own.bundle, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    assert own.ctrun("--supervisor", "exec", "one", "id", "-u").ok().out == "0\n"
    assert own.ctrun("--supervisor", "list", "-q").text == own.ctrun("list", "-q").text == "one"
    own.ctrun("--supervisor", "delete", "--force", "one").ok()
    with own.client() as client:
        assert client.ask("status")["commands"] == 5


def test_containers_of_its_own_live_and_end(own: Own) -> None:
    configure(own, "sleep", "1000")
    with own.client() as client:
        client.ask("run", id="two", bundle=str(own.bundle))
        process = {"args": ["sh", "-c", "exit 3"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        executed = client.ask("exec", id="two", process=process)["pid"]
        assert client.ask("wait", id="two", pid=executed)["status"] == 3
        assert client.ask("upgrade")["upgrades"] == 1
        assert client.ask("state", id="two")["container"]["status"] == "running"
        client.ask("kill", id="two", signal="KILL")
        assert client.ask("wait", id="two")["status"] == 137
        client.ask("delete", id="two")
        until("nothing is left", lambda: client.ask("list")["containers"] == [])


def test_its_socket_is_for_its_user_alone(own: Own) -> None:
    assert stat.S_IMODE(own.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.root.stat().st_mode) & 0o077 == 0
    for path in (own.place, own.root):
        os.chmod(path, 0o755)
    os.chmod(own.socket, 0o666)
    (theirs := own.place.parent / "theirs").mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    own.env["XDG_RUNTIME_DIR"] = str(theirs)
    refused = own.ctrun("call", "--socket", own.socket, "ping", uid=STRANGER)
    assert refused.code == 1
    assert f"uid {STRANGER} may not use this supervisor" in refused.err
    own.env["XDG_RUNTIME_DIR"] = str(own.place)
    assert own.ctrun("call", "ping").text == "{}"
