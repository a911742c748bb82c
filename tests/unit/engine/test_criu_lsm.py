"""Whether restored processes are under the profile that was asked for."""

from __future__ import annotations

import os
import subprocess

import pytest

from ctr_common.errors import CriuError
from ctr_supervisor.engine import criu_lsm


def test_a_process_without_the_profile_is_told_with_its_pid() -> None:
    with pytest.raises(
        CriuError, match=rf"process {os.getpid()} is under the apparmor profile .*, not no-such-profile"
    ):
        criu_lsm.check("apparmor:no-such-profile", os.getpid())


def test_a_process_that_has_ended_does_not_count() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        criu_lsm.check("apparmor:no-such-profile", process.pid)
    criu_lsm.check("apparmor:no-such-profile", process.pid)
