"""The API in the hands of a plain user."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.bundles import rootless_config
from tests.support.command import run
from tests.support.runtime import ROOT

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_busybox,
    pytest.mark.needs_user_namespaces,
    pytest.mark.needs_command("setpriv"),
    pytest.mark.usefixtures("no_leaks"),
]

USER = 54_321

PROGRAM = """
import json, sys, threading
import ctr_supervisor as containers

config, state_root, id, alone = json.loads(sys.argv[1]), *sys.argv[2:5]
release = threading.Event()
if alone == "no":
    threading.Thread(target=release.wait).start()
try:
    with containers.create(state_root, id, config) as container:
        environment = {"PATH": "/bin"}
        first = containers.Process(
            ["sh", "-c", "id -u; read x; exit 4"],
            env=environment, init=True, stdin=containers.PIPE, stdout=containers.PIPE,
        )
        with container.run(first):
            with container.run(containers.Process(["sh", "-c", "exit 3"], env=environment)) as second:
                print(second.wait(60))
            print(first.communicate(b"go\\n", 60)[0], first.wait(60))
finally:
    release.set()
"""


@pytest.mark.parametrize("alone", ["yes", "no"])
def test_a_plain_user_runs_containers(busybox_rootfs: Path, directory: Path, container_id: str, alone: str):
    config = rootless_config()
    del config["process"]
    config["root"] = {"path": str(busybox_rootfs), "readonly": True}
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind][0]["hostID"] = USER
    place = directory / "place"
    place.mkdir()
    os.chown(place, USER, USER)
    program = directory / "program.py"
    program.write_text(PROGRAM)
    ids = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    arguments = [json.dumps(config), place / "state", container_id, alone]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = run("setpriv", *ids, sys.executable, program, *arguments, env=environment).ok()
    assert done.out.splitlines() == ["3", "b'0\\n' 4"]
