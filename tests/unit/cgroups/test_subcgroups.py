from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError, UsageError
from ctr_supervisor.cgroups import subcgroups

PATHS = {"cpu": "/c/cpu/x", "pids": "/c/pids/x"}


@pytest.mark.parametrize("asked", [None, "", []])
def test_nothing_asked_is_the_container_s_own(asked):
    assert subcgroups.choose(PATHS, asked) == PATHS


@pytest.mark.parametrize("sub", ["sub", "/sub", "a/../sub", ["/sub"]])
def test_plain_path_goes_for_all_controllers(sub):
    assert subcgroups.choose(PATHS, sub) == {"cpu": "/c/cpu/x/sub", "pids": "/c/pids/x/sub"}


def test_path_with_controllers_leaves_the_others_alone():
    assert subcgroups.choose(PATHS, "cpu:sub") == {"cpu": "/c/cpu/x/sub", "pids": "/c/pids/x"}


def test_several_controllers_share_or_differ():
    assert subcgroups.choose(PATHS, ["cpu,pids:s"]) == {"cpu": "/c/cpu/x/s", "pids": "/c/pids/x/s"}
    assert subcgroups.choose(PATHS, ["cpu:s", "pids:t"]) == {"cpu": "/c/cpu/x/s", "pids": "/c/pids/x/t"}


def test_top_of_the_container_s_cgroup_may_be_asked_for():
    assert subcgroups.choose({"": "/c/x"}, "/") == {"": "/c/x"}


@pytest.mark.parametrize("sub", ["..", "../xy", "../../x/../../c", "cpu:/../../.."])
def test_path_outside_the_container_s_cgroup_is_refused(sub):
    with pytest.raises(CgroupError, match="is not a sub cgroup path"):
        subcgroups.choose(PATHS, sub)


@pytest.mark.parametrize("asked", ["memory:/s", "cpu,memory:/s"])
def test_controller_that_the_container_has_not_is_refused(asked):
    with pytest.raises(CgroupError, match="unknown controller"):
        subcgroups.choose(PATHS, asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["a:b:c"], "invalid --cgroup argument: a:b:c"),
        (["cpu:a", "/b"], r"invalid --cgroup argument: /b \(missing <controller>: prefix\)"),
        (["cpu:a", "cpu:b"], "controller cpu specified multiple times"),
    ],
)
def test_wrong_argument_is_a_usage_error(asked, message):
    with pytest.raises(UsageError, match=message):
        subcgroups.choose(PATHS, asked)
