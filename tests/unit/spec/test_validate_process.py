"""ctr_common/spec/validate_process.py: what `.process` means, in runc's words where it has some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import ConfigError
from ctr_common.spec import validate, validate_process
from tests.unit.spec.changes import (
    Change,
    both,
    changed,
    drop,
    problems_of,
    put,
    with_user_namespace,
)

ACCEPTED: dict[str, Change] = {
    "an unlimited rlimit": put("process", "rlimits", [{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}]),
    "a deadline": put("process", "scheduler", {"policy": "SCHED_DEADLINE", "runtime": 1, "period": 2, "deadline": 2}),
    "a real-time priority": put("process", "scheduler", {"policy": "SCHED_FIFO", "priority": 10}),
    "an io priority": put("process", "ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 7}),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(change: Change, bundle: Path) -> None:
    assert problems_of(changed(change), bundle) == []


REFUSED: dict[str, tuple[Change, str, str]] = {
    "no process": (drop("process"), ".process", "process property must not be empty"),
    "no args": (drop("process", "args"), ".process.args", "args must not be empty"),
    "empty args": (put("process", "args", []), ".process.args", "args must not be empty"),
    "no cwd": (drop("process", "cwd"), ".process.cwd", "Cwd property must not be empty"),
    "a relative cwd": (put("process", "cwd", "tmp"), ".process.cwd", "Cwd must be an absolute path"),
    "an environment entry without =": (put("process", "env", ["A=1", "B"]), ".process.env[1]", 'variable: "B"'),
    "an environment entry without a name": (put("process", "env", ["=1"]), ".process.env[0]", "name can't be empty"),
    "an unknown rlimit": (
        put("process", "rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
        ".process.rlimits[0].type",
        "wrong rlimit value: RLIMIT_X",
    ),
    "an rlimit twice": (
        lambda c: c["process"]["rlimits"].append(c["process"]["rlimits"][0]),
        ".process.rlimits[1]",
        "RLIMIT_NOFILE is set by .process.rlimits[0] already",
    ),
    "a soft limit above the hard one": (
        put("process", "rlimits", 0, "soft", 2000),
        ".process.rlimits[0].soft",
        "2000 is above the hard limit 1024",
    ),
    "an oom score out of range": (put("process", "oomScoreAdj", 1001), ".process.oomScoreAdj", "-1000 to 1000"),
    "a giant console": (
        put("process", "consoleSize", {"height": 1, "width": 65536}),
        ".process.consoleSize.width",
        "0 to 65535",
    ),
    "the id that is none": (put("process", "user", "uid", 2**32 - 1), ".process.user.uid", "means no id"),
    "the group that is none": (
        put("process", "user", "additionalGids", [1, 2**32 - 1]),
        ".process.user.additionalGids[1]",
        "means no id",
    ),
    "an unknown scheduler": (
        put("process", "scheduler", {"policy": "SCHED_X"}),
        ".process.scheduler.policy",
        "expected one of SCHED_OTHER",
    ),
    "a real-time policy without priority": (
        put("process", "scheduler", {"policy": "SCHED_RR"}),
        ".process.scheduler.priority",
        "needs a priority from 1 to 99",
    ),
    "a priority for a normal policy": (
        put("process", "scheduler", {"policy": "SCHED_BATCH", "priority": 1}),
        ".process.scheduler.priority",
        "can only be specified for SCHED_FIFO or SCHED_RR policy",
    ),
    "a deadline for a normal policy": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "deadline": 1}),
        ".process.scheduler.deadline",
        "can only be specified for SCHED_DEADLINE policy",
    ),
    "a nice value out of range": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "nice": 20}),
        ".process.scheduler.nice",
        "-20 to 19",
    ),
    "an unknown scheduler flag": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}),
        ".process.scheduler.flags[0]",
        "expected one of",
    ),
    "an unknown io class": (
        put("process", "ioPriority", {"class": "X"}),
        ".process.ioPriority.class",
        "expected one of IOPRIO_CLASS_RT",
    ),
    "an io priority out of range": (
        put("process", "ioPriority", {"class": "IOPRIO_CLASS_RT", "priority": 8}),
        ".process.ioPriority.priority",
        "invalid ioPriority.Priority: 8",
    ),
}


@pytest.mark.parametrize(("change", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(change: Change, path: str, words: str, bundle: Path) -> None:
    found = problems_of(changed(change), bundle)
    assert found
    assert found[0][0] == path
    assert words in found[0][1]


def test_rootless_cannot_set_groups_with_one_mapped_group(bundle: Path) -> None:
    config = changed(both(with_user_namespace(), put("process", "user", "additionalGids", [0])))
    assert problems_of(config, bundle, rootless=True) == [
        (".process.user.additionalGids", "cannot set any additional groups in a rootless container")
    ]
    assert problems_of(config, bundle) == []


def test_labels_need_a_security_module(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(both(put("process", "selinuxLabel", "a:b"), put("process", "apparmorProfile", "p")))
    for on in (True, False):
        monkeypatch.setattr(validate_process, "selinux_enabled", lambda on=on: on)
        monkeypatch.setattr(validate_process, "apparmor_enabled", lambda on=on: on)
        paths = [path for path, _ in problems_of(config, bundle)]
        assert paths == ([] if on else [".process.selinuxLabel", ".process.apparmorProfile"])


def test_unknown_capabilities_are_a_warning(bundle: Path) -> None:
    config = changed(put("process", "capabilities", "bounding", ["CAP_NEW", "CAP_KILL"]))
    assert validate.check(config, str(bundle), rootless=False) == [
        ".process.capabilities: ignoring unknown or unavailable capabilities: CAP_NEW"
    ]


def test_a_process_of_exec_is_checked_with_its_container() -> None:
    config = changed(with_user_namespace())
    process: Any = {"args": ["sh"], "cwd": "/", "user": {"uid": 7}, "env": ["X"]}
    with pytest.raises(ConfigError) as caught:
        validate.check_process(process, config, rootless=False)
    paths = [path for path, _ in caught.value.__dict__["problems"]]
    assert paths == [".env[0]", ".user.uid"]
