"""The scripts in examples/ do what they say, and leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support import criu
from tests.support.bundles import Bundles
from tests.support.command import Result, run
from tests.support.runtime import ROOT
from tests.support.slowness import SLOWNESS
from tests.support.supervised import Client, Supervisor
from tests.support.waiting import until

EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]
needs_jq = pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")


@pytest.fixture
def scratch(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scripts make their temporary files."""
    made = directory / "scratch"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    return made


@pytest.fixture
def supervisor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A running supervisor, which the scripts find."""
    made = Supervisor(directory).start()
    monkeypatch.setenv("CTRUN_SUPERVISOR", str(made.socket))
    yield made
    with made.client() as client:
        for container in client.ask("list")["containers"]:
            client.ask("delete", id=container["id"], force=True)
    made.stop()


@pytest.fixture
def cheap(bundle: Bundles) -> Callable[..., Path]:
    """A factory of bundles whose containers cost little."""

    def make(*args: str, **annotations: str) -> Path:
        def strip(config: dict[str, Any]) -> None:
            config["linux"] = {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
            config["annotations"] = {name.replace("_", "."): value for name, value in annotations.items()}
            config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] == "/proc"]
            del config["hostname"]

        return bundle(strip, args=list(args))

    return make


def example(name: str, *args: str | Path) -> Result:
    """Runs a script to its end, which comes when nobody holds its streams any more."""
    return run(EXAMPLES / name, *args, timeout=60 * SLOWNESS)


@pytest.mark.usefixtures("no_leaks")
def test_run_by_hand_shows_each_program_at_work(bundle: Bundles, scratch: Path) -> None:
    out = example("run-by-hand", bundle(args=["echo", "by hand"])).text
    assert "mount: proc on /proc  [.mounts[0]]" in out
    before, after = (int(line.split()[3]) for line in out.splitlines() if line.startswith("process "))
    assert before != after > 1
    root = out.partition("and in its root:\n")[2].partition("\n\n")[0].split("\n")
    assert {"bin", "proc", "dev"} <= set(root)
    assert 'ARG = "by hand"' in out
    assert out.endswith("is the host's\nby hand\n\n== it ended with status 0")
    assert os.listdir(scratch) == []


@pytest.mark.usefixtures("no_leaks")
def test_run_by_hand_ends_what_it_began_when_it_is_ended(bundle: Bundles, scratch: Path) -> None:
    """By a worker that fails, since its configuration asks for a mount of what is not there."""

    def broken(config: dict[str, Any]) -> None:
        config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]})

    result = example("run-by-hand", bundle(broken, args=["true"]))
    assert result.code == 1
    assert "/no/such" in result.err
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("script", ["run-by-hand", "watch-events", "drive-the-bridge", "rolling-restart"])
def test_wrong_arguments_are_told_how_it_is_used(script: str, scratch: Path) -> None:
    result = example(script, "--nonsense", "two")
    assert result.code == 2
    assert f"usage: {script}" in result.err
    assert os.listdir(scratch) == []


@needs_jq
@pytest.mark.needs_criu
@pytest.mark.timeout(120)
def test_drive_the_bridge_saves_a_tree_and_lets_it_go_on(scratch: Path) -> None:
    out = example("drive-the-bridge", criu.find()).text
    assert "works with this kernel" in out
    figures = next(json.loads(line) for line in out.splitlines() if line.startswith("{"))
    assert figures["stats"]["pages_written"] > 0
    dumped, restored = (
        int(line.split(" at ")[1].split()[0].rstrip(";")) for line in out.splitlines() if " at " in line
    )
    assert 3 < dumped < restored
    assert "hint: a process has an established TCP connection" in out
    assert os.listdir(scratch) == []
    assert processes_with(str(scratch)) == []


def processes_with(word: str) -> list[str]:
    """Command lines of processes that have a word in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word in line:
            found.append(line)
    return found


@needs_jq
def test_drive_the_bridge_says_what_a_wrong_criu_is(scratch: Path) -> None:
    result = example("drive-the-bridge", "/no/such/criu")
    assert result.code == 1
    assert "executable file not found" in result.err
    assert os.listdir(scratch) == []


class Watch:
    """`watch-events` under way; its lines are read in the background."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [EXAMPLES / "watch-events", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self.reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.lines += (line.rstrip("\n") for line in iter(stream.readline, ""))

    def wait_for(self, line: str) -> None:
        try:
            until(f"it says {line!r}", lambda: line in self.lines)
        except AssertionError:
            raise AssertionError(f"it says {line!r}, but: {self.lines}") from None

    def end(self, number: int = 0) -> int:
        """Ends it, or waits for its own end; its exit status once nobody holds its streams."""
        if number:
            self.process.send_signal(number)
        status = self.process.wait(30 * SLOWNESS)
        self.reader.join(30 * SLOWNESS)
        assert not self.reader.is_alive(), "somebody holds its output"
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return status


@pytest.fixture
def watch(supervisor: Supervisor) -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def start(*args: str) -> Watch:
        with supervisor.client() as client:
            before = client.ask("status")["subscribers"]
            made.append(Watch(*args))
            until("it listens", lambda: client.ask("status")["subscribers"] > before)
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)


def lives_and_ends(client: Client, name: str, bundle: Path) -> None:
    client.ask("run", id=name, bundle=str(bundle))
    client.ask("wait", id=name)


@needs_jq
def test_watch_events_prints_them_as_they_come_and_ends_with_a_signal(
    supervisor: Supervisor,
    watch: Callable[..., Watch],
    cheap: Callable[..., Path],
    new_container_id: Callable[[], str],
    scratch: Path,
) -> None:
    one, other = new_container_id(), new_container_id()
    everything, single = watch(), watch(other)
    with supervisor.client() as client:
        lives_and_ends(client, one, cheap("sh", "-c", "exit 3"))
        lives_and_ends(client, other, cheap("true"))
    everything.wait_for(f"{other} exited 0")
    single.wait_for(f"{other} exited 0")
    assert everything.lines[:3] == [f"{one} created", f"{one} started", f"{one} exited 3"]
    assert single.lines == [f"{other} created", f"{other} started", f"{other} exited 0"]
    assert everything.end(signal.SIGTERM) == 143
    assert single.end(signal.SIGINT) == 130
    with supervisor.client() as client:
        until("the connections are closed", lambda: client.ask("status")["clients"] == 1)
    assert os.listdir(scratch) == []


@needs_jq
def test_watch_events_starts_again_what_fails_and_wants_it(
    supervisor: Supervisor,
    watch: Callable[..., Watch],
    cheap: Callable[..., Path],
    new_container_id: Callable[[], str],
    directory: Path,
) -> None:
    wanting, plain = new_container_id(), new_container_id()
    bundle = cheap(
        "sh", "-c", "echo x >> /shared/lives; [ $(wc -l < /shared/lives) -ge 3 ]", org_example_restart="on-failure"
    )
    config = json.loads((bundle / "config.json").read_text())
    (directory / "shared").mkdir()
    config["mounts"].append(
        {"destination": "/shared", "type": "bind", "source": str(directory / "shared"), "options": ["bind"]}
    )
    (bundle / "config.json").write_text(json.dumps(config))
    seen = watch("--restart")
    with supervisor.client() as client:
        client.ask("run", id=wanting, bundle=str(bundle))
        seen.wait_for(f"{wanting} exited 0")
        lives_and_ends(client, plain, cheap("false"))
        seen.wait_for(f"{plain} exited 1")
        assert client.ask("state", id=plain)["container"]["status"] == "stopped"
    assert seen.lines.count(f"{wanting} runs again") == 2
    assert (directory / "shared/lives").read_text() == "x\nx\nx\n"
    assert seen.end(signal.SIGTERM) == 143


@needs_jq
def test_watch_events_ends_with_the_supervisor(supervisor: Supervisor, watch: Callable[..., Watch]) -> None:
    seen = watch()
    supervisor.stop()
    assert seen.end() == 1
    supervisor.start()


@needs_jq
def test_rolling_restart_replaces_one_after_the_other(
    supervisor: Supervisor, cheap: Callable[..., Path], new_container_id: Callable[[], str], scratch: Path
) -> None:
    old = cheap("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    new = cheap("sh", "-c", "sleep 0.2; exec sleep 600")
    names = [new_container_id(), new_container_id()]
    with supervisor.client() as client:
        for name in names:
            client.ask("run", id=name, bundle=str(old))
        out = example("rolling-restart", new, '[ "$(cat /proc/1/comm)" = sleep ]', *names).text
        assert out == "\n".join(f"{name}: replaced" for name in names)
        for name in names:
            found = client.ask("state", id=name)["container"]
            assert (found["status"], found["bundle"]) == ("running", str(new))


@needs_jq
def test_rolling_restart_puts_the_old_one_back_and_stops_there(
    supervisor: Supervisor,
    cheap: Callable[..., Path],
    new_container_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROLLING_RESTART_PATIENCE", "1")
    old, new = cheap("sleep", "600"), cheap("sleep", "600")
    names = [new_container_id(), new_container_id()]
    with supervisor.client() as client:
        for name in names:
            client.ask("run", id=name, bundle=str(old))
        result = example("rolling-restart", new, "false", *names)
        assert result.code == 1
        assert f"{names[0]} does not work with the new bundle" in result.err
        for name in names:
            found = client.ask("state", id=name)["container"]
            assert (found["status"], found["bundle"]) == ("running", str(old))
