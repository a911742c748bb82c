"""CVE-2016-9962: a process in the container looked into the runtime's process that was entering it, and at its fds."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security import racing
from tests.security.hostile import (
    FOREVER,
    LOOK_AT_OTHERS,
    changed,
    created,
    joining,
    plain,
    running,
    with_hook,
    with_user_namespace,
)
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

Identifiers = Callable[[], str]


def seen(report: str) -> dict[str, set[str]]:
    """What the neighbour could see, by name of the process."""
    found: dict[str, set[str]] = {}
    for line in report.splitlines():
        _, rest = line.split(" ", 1)
        name, thing = rest.rsplit(" ", 1)
        found.setdefault(name, set()).add(thing)
    return found


def test_a_created_container_shows_nothing_to_a_neighbour_in_its_pid_namespace(
    ctrun: Runtime, bundle: Bundles, new_container_id: Identifiers
):
    neighbour = new_container_id()
    with running(ctrun, bundle(plain, args=FOREVER), neighbour) as state:
        victim = bundle(changed(plain, joining("pid", state["pid"])), args=FOREVER)
        with created(ctrun, victim, new_container_id()):
            report = seen(ctrun("exec", neighbour, "sh", "-c", LOOK_AT_OTHERS).out)
    # its own first process shows that the neighbour knows how to look
    assert report["sleep"] >= {"exe", "cwd", "fd", "root", "environ"}
    assert report["ctr-init:1"] == {"there"}


def test_a_process_that_enters_a_container_shows_nothing_at_any_moment(
    ctrun: Runtime, bundle: Bundles, new_container_id: Identifiers
):
    """The container's root has every capability in its user namespace, so only the dumpable flag protects."""
    container = new_container_id()
    reports: list[dict[str, set[str]]] = []

    def look(_: int, stop: racing.Stop) -> None:
        name = Path(f"/proc/{stop.pid}/comm").read_text().strip()
        if name.startswith("ctr-init:1") and len(reports) < 10:
            reports.append(seen(ctrun("exec", container, "sh", "-c", LOOK_AT_OTHERS).out))

    with running(ctrun, bundle(changed(plain, with_user_namespace), args=FOREVER), container):
        outcome = racing.run([ctrun.path, *ctrun.globals, "exec", container, "true"], look)
    assert outcome.code == 0, repr(outcome)
    assert len(reports) > 3, repr(outcome)
    for report in reports:
        assert report["sleep"] >= {"exe", "cwd", "fd", "root", "environ"}
        assert report["ctr-init:1"] == {"there"}


def test_the_setup_worker_shows_nothing_to_a_neighbour_in_its_namespaces(
    ctrun: Runtime, bundle: Bundles, new_container_id: Identifiers, directory: Path
):
    """The worker, whose root is the host's still, waits for a hook; the neighbour is root of its user namespace."""
    neighbour = new_container_id()
    (directory / "look").write_text(LOOK_AT_OTHERS)

    def into_neighbour(state: dict[str, Any]) -> Any:
        command = shlex.join([str(ctrun.path), *ctrun.globals, "exec", neighbour, "sh", "-c"])
        hook = f'{command} "$(cat {directory}/look)" >{directory}/report'
        return changed(
            plain,
            with_user_namespace,
            joining("pid", state["pid"]),
            joining("user", state["pid"]),
            with_hook("createRuntime", hook),
        )

    with running(ctrun, bundle(changed(plain, with_user_namespace), args=FOREVER), neighbour) as state:
        ctrun("run", "-b", bundle(into_neighbour(state)), new_container_id()).ok()
    report = seen((directory / "report").read_text())
    assert report["sleep"] >= {"exe", "cwd", "fd", "root", "environ"}
    hidden = {name: things for name, things in report.items() if name not in ("sleep", "sh")}
    assert len(hidden) == 2, report  # the container process and the worker
    assert all(things == {"there"} for things in hidden.values()), report


def test_a_process_that_sets_its_clocks_shows_nothing_to_a_neighbour_of_its_pod(
    ctrun: Runtime, bundle: Bundles, new_container_id: Identifiers
):
    """It had to be dumpable to open timens_offsets; the neighbour is root of the user namespace that it joins."""
    neighbour, victim = new_container_id(), new_container_id()
    reports: list[dict[str, set[str]]] = []

    def with_clocks(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}

    def look(_: int, stop: racing.Stop) -> None:
        name = Path(f"/proc/{stop.pid}/comm").read_text().strip()
        if name == "ctr-init:1" and stop.path == "self/timens_offsets":
            reports.append(seen(ctrun("exec", neighbour, "sh", "-c", LOOK_AT_OTHERS).out))

    with running(ctrun, bundle(changed(plain, with_user_namespace), args=FOREVER), neighbour) as state:
        joined = [joining(kind, state["pid"]) for kind in ("pid", "user")]
        path = bundle(changed(plain, with_user_namespace, *joined, with_clocks), args=["cat", "/proc/uptime"])
        outcome = racing.run([ctrun.path, *ctrun.globals, "run", "-b", path, victim], look)
    assert outcome.code == 0, repr(outcome)
    assert float(outcome.out.split()[0]) > 1000000
    assert reports, repr(outcome)
    for report in reports:
        assert report["sleep"] >= {"exe", "cwd", "fd", "root", "environ"}
        assert report["ctr-init:1"] == {"there"}
