from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.systemd_names import check_unit, expand_slice, place


@pytest.mark.parametrize(
    ("asked", "user", "path"),
    [
        ("", False, "/system.slice/runc-id1.scope"),
        ("", True, "/user.slice/runc-id1.scope"),
        ("system.slice:docker:1234", False, "/system.slice/docker-1234.scope"),
        (":libpod:1234", False, "/system.slice/libpod-1234.scope"),
        (":libpod:1234", True, "/user.slice/libpod-1234.scope"),
        ("user.slice:libpod:x", True, "/user.slice/libpod-x.scope"),
        (
            "kubepods-besteffort-pod1_2.slice:cri-containerd:abc",
            False,
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-abc.scope",
        ),
        ("-.slice:p:x", False, "/p-x.scope"),
        ("a.slice::x", False, "/a.slice/-x.scope"),
        ("a.slice:ignored:a-b.slice", False, "/a.slice/a-b.slice"),
    ],
)
def test_path_follows_from_slice_prefix_and_name(asked, user, path):
    assert place(asked, "id1", user=user).path() == path


@pytest.mark.parametrize("asked", ["/a/b", "a", "a:b", "a:b:c:d"])
def test_path_of_another_form_is_told_what_was_expected(asked):
    with pytest.raises(CgroupError, match='expected cgroupsPath to be of format "slice:prefix:name"') as caught:
        place(asked, "id1", user=False)
    assert caught.value.json_path == ".linux.cgroupsPath"


@pytest.mark.parametrize(
    "slice", ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../x.slice", "é.slice"]
)
def test_what_can_be_no_slice_is_refused(slice):
    with pytest.raises(CgroupError, match="invalid slice name"):
        expand_slice(slice)


def test_slice_is_one_step_down_for_each_dash():
    assert expand_slice("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert expand_slice("-.slice") == "/"


@pytest.mark.parametrize("name", ["x/../../y", "a b", "x\0", "ü", "x" * 250])
def test_name_that_can_be_no_unit_never_becomes_a_path(name):
    with pytest.raises(CgroupError, match="invalid unit name"):
        place(f"system.slice:p:{name}", "id1", user=False)


def test_unit_from_a_state_file_is_checked():
    with pytest.raises(CgroupError, match="invalid unit name"):
        check_unit("../x.scope")
