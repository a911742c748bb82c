"""The sample of libcontainer's README, as it stands in examples/, and the one of docs/API.md."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.bundles import copy_rootfs, default_config
from tests.support.command import run
from tests.support.runtime import ROOT

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox, pytest.mark.needs_user_namespaces]


@pytest.fixture
def rootfs(busybox_rootfs: Path, directory: Path) -> Path:
    """A root file system of user 1000 with a user daemon."""
    made = directory / "rootfs"
    copy_rootfs(busybox_rootfs, made)
    with open(made / "etc/passwd", "a") as users:
        users.write("daemon:x:2:2::/:\n")
    for path in [made, *made.rglob("*")]:
        os.chown(path, 1000, 1000, follow_symlinks=False)
    return made


@pytest.mark.needs_limits
@pytest.mark.usefixtures("no_leaks")
def test_the_sample_of_libcontainer_s_readme_runs(rootfs: Path, directory: Path):
    script = "id -u; hostname; ulimit -n; cat /proc/self/uid_map; ip -o addr show lo; read x; exit 3"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STATE_ROOT": str(directory / "state")}
    done = run(
        sys.executable, ROOT / "examples/libcontainer.py", rootfs, "sh", "-c", script, env=environment, stdin="go\n"
    )
    assert done.code == 3, done.err
    lines = done.out.splitlines()
    assert lines[:3] == ["2", "testing", "1025"]
    assert lines[3].split() == ["0", "1000", "65536"]
    assert "127.0.0.1/8" in lines[4]
    assert os.listdir(directory / "state") == []


@pytest.mark.needs_limits
@pytest.mark.usefixtures("no_leaks")
def test_the_sample_of_the_documentation_runs(busybox_rootfs: Path, directory: Path):
    document = (ROOT / "docs/API.md").read_text()
    (sample,) = re.findall(r"^```python\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    assert '"/run/ctrun", "hello"' in sample
    config = default_config()
    del config["process"]
    config["root"] = {"path": str(busybox_rootfs), "readonly": True}
    program = directory / "sample.py"
    program.write_text(f"config = {config!r}\n{sample.replace('/run/ctrun', str(directory / 'state'))}")
    done = run(sys.executable, program, env={**os.environ, "PYTHONPATH": str(ROOT)}).ok()
    lines = done.out.splitlines()
    assert lines[0].startswith("uid=0")
    assert len(lines) == 2, done.out
    usage, word = lines[1].split()
    assert word == r"b'hello\n'"
    assert int(usage) > 0
    assert os.listdir(directory / "state") == []
