"""A directory that looks like a resctrl filesystem, for kernels and processors without Intel RDT."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.support.command import Result, run
from tests.support.runtime import ROOT

SCHEMATA = "    MB:0=100;1=100\n    L3:0=fff;1=fff\n"
COUNTERS = {"mbm_total_bytes": "1000", "mbm_local_bytes": "600", "llc_occupancy": "4096"}

# ctrun as it is, but for where mountinfo is and what mkdir and rmdir of a group do.
CTRUN = f"""
import sys
sys.path += [{str(ROOT)!r}]
from ctr_common import resctrl
from ctr_supervisor.cli.main import main
from ctr_supervisor.engine import rdt
from tests.support.resctrl import make_group, remove_group
resctrl.MOUNTINFO = sys.argv.pop(1)
rdt.make_group, rdt.remove_group = make_group, remove_group
sys.argv[0] = "ctrun"
raise SystemExit(main())
"""


def make_group(path: str) -> None:
    """What mkdir does in resctrl: the new group has its files, and directories for monitoring."""
    os.mkdir(path)
    fill_group(Path(path), monitoring_only=Path(path).parent.name == "mon_groups")


def remove_group(path: str) -> None:
    """What rmdir does in resctrl: the files go too."""
    os.listdir(path)
    shutil.rmtree(path)


def fill_group(path: Path, monitoring_only: bool = False) -> None:
    """The files of a group."""
    (path / "tasks").write_text("")
    if not monitoring_only:
        (path / "schemata").write_text(SCHEMATA)
        (path / "mon_groups").mkdir()
    for domain in ("00", "01"):
        data = path / f"mon_data/mon_L3_{domain}"
        data.mkdir(parents=True)
        for name, value in COUNTERS.items():
            (data / name).write_text(f"{value}\n")


class Resctrl:
    """A tree below a directory, and a mountinfo that tells of it.

    Args:
        directory: an existing directory.
        options: mount options.
    """

    def __init__(self, directory: Path, options: str = "rw") -> None:
        self.root = directory / "fake resctrl"
        self.mountinfo = directory / "mountinfo"
        escaped = str(self.root).replace(" ", "\\040")
        self.mountinfo.write_text(
            "21 1 0:20 / /proc rw - proc proc rw\n"
            f"22 1 0:21 / {escaped} rw,nosuid shared:9 - resctrl resctrl {options}\n"
        )
        for file, text in {
            "info/L3/cbm_mask": "fff",
            "info/L3/min_cbm_bits": "2",
            "info/L3/num_closids": "16",
            "info/MB/bandwidth_gran": "10",
            "info/MB/delay_linear": "1",
            "info/MB/min_bandwidth": "10",
            "info/MB/num_closids": "8",
            "info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes",
            "info/last_cmd_status": "ok",
        }.items():
            path = self.root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        fill_group(self.root)

    def group(self, name: str) -> Path:
        """Directory of a group."""
        return self.root / name

    def add(self, name: str) -> Path:
        """A group that was there before, as an administrator makes one."""
        make_group(str(self.group(name)))
        return self.group(name)

    def groups(self) -> set[str]:
        """The classes of service that there are."""
        return {path.name for path in self.root.iterdir() if path.is_dir()} - {"info", "mon_groups", "mon_data"}

    def ctrun(self, *args: str | Path) -> Result:
        """Runs ctrun, which finds this tree."""
        __tracebackhide__ = True
        return run(sys.executable, "-IS", "-c", CTRUN, self.mountinfo, *args)
