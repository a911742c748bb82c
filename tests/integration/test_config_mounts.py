"""`.mounts` of config.json: every option of the specification's table, and what else an entry may say.

An option that sets something is looked for; one that takes something away stands behind its opposite, or on a mount
of the host that has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import run
from tests.support.inside import Inside, as_root_of_the_host, changed, mount, namespaces, with_mounts
from tests.support.runtime import Runtime
from tests.support.waiting_container import Mount, parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers

HostMount = Callable[..., Path]


@pytest.fixture
def host_mount(directory: Path) -> Iterator[HostMount]:
    """Makes tmpfs mounts of the host, which end with the test: `host_mount("source/below", "ro")`."""
    with ExitStack() as stack:

        def make(name: str, options: str = "rw", propagation: str = "private") -> Path:
            path = directory / name
            path.mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", options, "ctrtest", path).ok()
            stack.callback(run, "umount", path)
            run("mount", f"--make-{propagation}", path).ok()
            return path

        yield make


def of_tmpfs(inside: Inside, *options: str, runc: bool = True) -> Mount:
    return inside.mount_at("/x", with_mounts(mount("/x", "tmpfs", "tmpfs", *options)), runc)


# option, options that stand before it, what the mount then has, what it then lacks
ON_A_NEW_MOUNT = [
    ("async", ["sync"], [], ["sync"]),
    ("atime", ["noatime"], [], ["noatime"]),
    ("dev", ["nodev"], [], ["nodev"]),
    ("diratime", ["nodiratime"], [], ["nodiratime"]),
    ("dirsync", [], ["dirsync"], []),
    ("exec", ["noexec"], [], ["noexec"]),
    ("lazytime", [], ["lazytime"], []),
    ("noatime", [], ["noatime"], ["relatime"]),
    ("nodev", [], ["nodev"], []),
    ("nodiratime", [], ["nodiratime"], []),
    ("noexec", [], ["noexec"], []),
    ("nolazytime", ["lazytime"], [], ["lazytime"]),
    ("nostrictatime", ["strictatime"], ["relatime"], []),
    ("nosuid", [], ["nosuid"], []),
    ("ro", [], ["ro"], ["rw"]),
    ("rw", ["ro"], ["rw"], ["ro"]),
    ("strictatime", [], [], ["relatime", "noatime"]),
    ("suid", ["nosuid"], [], ["nosuid"]),
    ("sync", [], ["sync"], []),
]


@covers(".mounts[].options", "mount option {option}")
@pytest.mark.parametrize(
    ("option", "before", "has", "lacks"), ON_A_NEW_MOUNT, ids=[option for option, *_ in ON_A_NEW_MOUNT]
)
def test_an_option_of_a_new_mount(inside: Inside, option: str, before: list[str], has: list[str], lacks: list[str]):
    # a bind mount replaces the flags of its source by those that it names, as mount(8) does
    found = of_tmpfs(inside, *before, option)
    assert set(has) <= found.options | found.super_options
    # a read-only tmpfs has its super block writable, to be filled
    assert set(lacks).isdisjoint(found.options | (found.super_options - {"rw"}))


@covers("mount option {option}")
@pytest.mark.parametrize(
    ("option", "before", "followed"), [("nosymfollow", [], False), ("symfollow", ["nosymfollow"], True)]
)
def test_symlinks_of_a_mount_are_followed_or_not(inside: Inside, option: str, before: list[str], followed: bool):
    change = with_mounts(mount("/x", "tmpfs", "tmpfs", *before, option))
    script = "echo text >/x/file; ln -s file /x/link; cat /x/link || true"
    assert inside.shell(script, change) == ("text" if followed else "")


@covers("mount option defaults")
def test_defaults_say_nothing(inside: Inside):
    plain, named = of_tmpfs(inside), of_tmpfs(inside, "defaults", runc=False)
    assert plain.key() == named.key()
    assert of_tmpfs(inside, "ro", "defaults", runc=False).key() == of_tmpfs(inside, "ro").key()


# option, what stands before it, flags of mount(2) that have to be there, and that must not
BY_CALL = [
    ("acl", [], "MS_POSIXACL", True),
    ("noacl", ["acl"], "MS_POSIXACL", False),
    ("iversion", [], "MS_I_VERSION", True),
    ("noiversion", ["iversion"], "MS_I_VERSION", False),
    ("silent", [], "MS_SILENT", True),
    ("loud", ["silent"], "MS_SILENT", False),
    ("mand", [], '"mand"', True),
    ("nomand", ["mand"], '"mand"', False),
]


@covers("mount option {option}")
@pytest.mark.parametrize(("option", "before", "flag", "there"), BY_CALL, ids=[option for option, *_ in BY_CALL])
@pytest.mark.needs_command("strace")
@pytest.mark.needs_direct
def test_an_option_that_the_kernel_does_not_show_is_passed_to_it(
    inside: Inside,
    ctrun: Runtime,
    container_id: str,
    option: str,
    before: list[str],
    flag: str,
    there: bool,
    directory: Path,
):
    path = inside.bundle(changed(with_mounts(mount("/x", "tmpfs", "seen-tmpfs", *before, option))), args=["true"])
    trace = directory / "trace"
    tracer = Runtime(Path("strace"))
    tracer("-f", "-qq", "-o", trace, "-e", "trace=mount,fsconfig", ctrun.path, "run", "-b", path, container_id).ok()
    calls = [line for line in trace.read_text().splitlines() if flag in line]
    assert bool(calls) == there


@covers("mount option {option}", "mount option bind", ".mounts[].type", ".mounts[].source", ".mounts[].destination")
@pytest.mark.parametrize(("option", "seen"), [("bind", "file\n"), ("rbind", "below\nfile\n")])
def test_a_bind_mount_shows_its_source(inside: Inside, host_mount: HostMount, directory: Path, option: str, seen: str):
    source = directory / "source"
    source.mkdir()
    (source / "file").touch()
    below = source / "mounted"
    below.mkdir()
    host_mount("source/mounted")
    (below / "below").touch()
    change = with_mounts(mount("/new/place", "none", source, option))
    result = inside.result("sh", "-c", "ls /new/place/mounted; ls -p /new/place | grep -v /", change=change, runc=True)
    assert result.out == seen


@covers(".mounts[].type")
def test_a_mount_of_type_bind_needs_no_option(inside: Inside, directory: Path):
    (directory / "file").write_text("of the host\n")
    assert (
        inside("cat", "/tmp/file", change=with_mounts(mount("/tmp/file", "bind", directory / "file"))) == "of the host"
    )


@covers("mount option {option}")
@pytest.mark.parametrize(
    ("option", "host", "has", "lacks"),
    [
        ("relatime", "noatime", "relatime", "noatime"),
        ("norelatime", "noatime", "noatime", "relatime"),
        ("atime", "noatime", "relatime", "noatime"),
        ("strictatime", "noatime", "nosuid", "relatime"),
        ("nostrictatime", "strictatime", "relatime", "noatime"),
        ("nostrictatime", "noatime", "noatime", "relatime"),
        ("atime", "strictatime", "nosuid", "relatime"),
        ("exec", "noexec", "nosuid", "noexec"),
        ("rw", "ro", "rw", "ro"),
    ],
)
def test_an_option_changes_a_bind_mount(
    inside: Inside, host_mount: HostMount, option: str, host: str, has: str, lacks: str
):
    source = host_mount("source", f"{host},nosuid")
    extra = ["nosuid"] if has == "nosuid" else []
    found = inside.mount_at("/x", with_mounts(mount("/x", "none", source, "bind", *extra, option)))
    assert has in found.options
    assert lacks not in found.options


@covers("mount option remount")
def test_remount_changes_what_is_mounted(inside: Inside):
    entries = [mount("/x", "tmpfs", "tmpfs"), mount("/x", "tmpfs", "tmpfs", "remount", "ro", "nosuid")]
    found = [entry for entry in inside.mounts(with_mounts(*entries)) if entry.point == "/x"]
    assert len(found) == 1
    assert {"ro", "nosuid"} <= found[0].options


@covers("mount option remount")
def test_remount_changes_a_bind_mount(inside: Inside, directory: Path):
    entries = [
        mount("/x", "none", directory, "bind"),
        mount("/x", "none", directory, "bind", "remount", "ro", "noexec"),
    ]
    found = [entry for entry in inside.mounts(with_mounts(*entries)) if entry.point == "/x"]
    assert len(found) == 1
    assert {"ro", "noexec"} <= found[0].options


# -- the tree below a bind mount

RECURSIVE = [
    ("ratime", "noatime", [], ["noatime"]),
    ("rdev", "nodev", [], ["nodev"]),
    ("rdiratime", "nodiratime", [], ["nodiratime"]),
    ("rexec", "noexec", [], ["noexec"]),
    ("rnoatime", "rw", ["noatime"], ["relatime"]),
    ("rnodev", "rw", ["nodev"], []),
    ("rnodiratime", "rw", ["nodiratime"], []),
    ("rnoexec", "rw", ["noexec"], []),
    ("rnorelatime", "noatime", ["noatime"], ["relatime"]),
    ("rnostrictatime", "strictatime", ["relatime"], []),
    ("rnosuid", "rw", ["nosuid"], []),
    ("rnosymfollow", "rw", ["nosymfollow"], []),
    ("rrelatime", "noatime", ["relatime"], ["noatime"]),
    ("rro", "rw", ["ro"], ["rw"]),
    ("rrw", "ro", ["rw"], ["ro"]),
    ("rstrictatime", "noatime", [], ["relatime", "noatime"]),
    ("rsuid", "nosuid", [], ["nosuid"]),
    ("rsymfollow", "nosymfollow", [], ["nosymfollow"]),
]


@covers("mount option {option}")
@pytest.mark.parametrize(("option", "host", "has", "lacks"), RECURSIVE, ids=[option for option, *_ in RECURSIVE])
def test_a_recursive_option_reaches_the_mounts_below(
    inside: Inside, host_mount: HostMount, option: str, host: str, has: list[str], lacks: list[str]
):
    source = host_mount("source")
    host_mount("source/below", host)
    found = inside.mounts(with_mounts(mount("/x", "none", source, "rbind", option)))
    options = next(shown_options(entry) for entry in found if entry.point == "/x/below")
    assert set(has) <= options
    assert set(lacks).isdisjoint(options)


@covers("mount option {option}")
@pytest.mark.parametrize(("option", "given", "has", "lacks"), RECURSIVE, ids=[option for option, *_ in RECURSIVE])
def test_a_recursive_option_holds_for_a_new_filesystem(
    inside: Inside, option: str, given: str, has: list[str], lacks: list[str]
):
    found = inside.mount_at("/x", with_mounts(mount("/x", "tmpfs", "tmpfs", given, option)))
    assert set(has) <= found.options
    assert set(lacks).isdisjoint(found.options)


@covers("mount option {option}")
@pytest.mark.parametrize(("option", "host", "has", "lacks"), RECURSIVE, ids=[option for option, *_ in RECURSIVE])
def test_a_recursive_option_changes_what_is_mounted_already(
    inside: Inside, host_mount: HostMount, option: str, host: str, has: list[str], lacks: list[str]
):
    source = host_mount("source")
    host_mount("source/below", host)
    entries = [mount("/x", "none", source, "rbind"), mount("/x", "none", source, "rbind", "remount", option)]
    options = {entry.point: shown_options(entry) for entry in inside.mounts(with_mounts(*entries))}
    assert set(has) <= options["/x/below"]
    assert set(lacks).isdisjoint(options["/x/below"])


@covers("mount option {option}")
@pytest.mark.parametrize(
    ("options", "option", "has", "lacks"),
    [
        (["rnoatime", "rstrictatime"], "rstrictatime", [], ["noatime", "relatime"]),
        (["rstrictatime", "rnoatime"], "rnoatime", ["noatime"], ["relatime"]),
        (["rnoatime", "rrelatime"], "rrelatime", ["relatime"], ["noatime"]),
        (["rnoatime", "ratime"], "ratime", ["relatime"], ["noatime"]),
        (["rnodiratime", "rnoatime"], "rnodiratime", ["nodiratime", "noatime"], []),
        (["rnodiratime", "rdiratime"], "rdiratime", [], ["nodiratime"]),
        (["rnoatime", "rnostrictatime"], "rnostrictatime", ["noatime"], []),
    ],
)
def test_the_last_of_the_recursive_access_time_modes_holds(
    inside: Inside, host_mount: HostMount, options: list[str], option: str, has: list[str], lacks: list[str]
):
    source = host_mount("source", "strictatime")
    host_mount("source/below", "strictatime")
    found = inside.mounts(with_mounts(mount("/x", "none", source, "rbind", *options)))
    for shown in (shown_options(entry) for entry in found if entry.point.startswith("/x")):
        assert set(has) <= shown
        assert set(lacks).isdisjoint(shown)


def shown_options(found: Mount) -> frozenset[str]:
    return found.options


@covers("mount option ro")
def test_an_option_that_is_not_recursive_stays_above(inside: Inside, host_mount: HostMount):
    source = host_mount("source")
    host_mount("source/below")
    found = inside.mounts(with_mounts(mount("/x", "none", source, "rbind", "ro")), runc="/x")
    options = {entry.point: entry.options for entry in found}
    assert "ro" in options["/x"]
    assert "rw" in options["/x/below"]


# -- propagation

PROPAGATION = [
    ("private", ["shared"], [], ["shared"]),
    ("shared", [], ["shared"], []),
    ("slave", ["shared"], [], ["shared"]),
    ("unbindable", [], ["unbindable"], []),
    ("rprivate", ["rshared"], [], []),
    ("rshared", [], ["shared"], ["shared"]),
    ("rslave", ["rshared"], [], []),
    ("runbindable", [], ["unbindable"], ["unbindable"]),
]


@covers("mount option {option}")
@pytest.mark.parametrize(
    ("option", "before", "above", "below"), PROPAGATION, ids=[option for option, *_ in PROPAGATION]
)
def test_propagation_is_set_on_the_mount_or_all_of_its_tree(
    inside: Inside, host_mount: HostMount, option: str, before: list[str], above: list[str], below: list[str]
):
    source = host_mount("source")
    host_mount("source/below")
    # for the options that are not recursive, `before` shows that the mounts below are left alone
    first = [f"r{word}" if not word.startswith("r") else word for word in before]
    found = inside.mounts(with_mounts(mount("/x", "none", source, "rbind", *first, option)))
    propagation = {entry.point: entry.propagation for entry in found}
    assert (propagation["/x"], propagation["/x/below"]) == (above, below)


@covers("mount option {option}")
@pytest.mark.parametrize(
    ("option", "arrives", "leaves"), [("rslave", True, False), ("rshared", True, True), ("rprivate", False, False)]
)
def test_mounts_go_where_propagation_lets_them(
    inside: Inside, host_mount: HostMount, option: str, arrives: bool, leaves: bool, directory: Path
):
    source = host_mount("source", "rw", "shared")
    (source / "from-host").mkdir()
    (source / "from-container").mkdir()
    change = [
        as_root_of_the_host,
        {"linux": {"rootfsPropagation": "shared"}},
        with_mounts(mount("/x", "none", source, "rbind", option)),
    ]
    with inside.running(change=change) as container:
        host_mount("source/from-host")
        container.exec("mount", "-t", "tmpfs", "ctrtest", "/x/from-container").ok()
        try:
            seen = parse_mountinfo(container.exec("cat", "/proc/self/mountinfo").text)
            points = [entry.point for entry in parse_mountinfo(Path("/proc/self/mountinfo").read_text())]
            assert ("/x/from-host" in [entry.point for entry in seen]) is arrives
            assert (str(source / "from-container") in points) is leaves
        finally:
            run("umount", source / "from-container")


# -- what a filesystem takes


@covers(".mounts[].options")
def test_data_reach_the_filesystem(inside: Inside):
    change = with_mounts(mount("/x", "tmpfs", "named", "size=64k", "mode=1731", "uid=7", "gid=8", "nr_inodes=9"))
    found = inside.mount_at("/x", change, runc=True)
    assert {"size=64k", "mode=1731", "uid=7", "gid=8", "nr_inodes=9"} <= found.super_options
    assert (found.type, found.source) == ("tmpfs", "named")
    script = "stat -c '%a %u %g' /x; dd if=/dev/zero of=/x/big bs=1k count=100 2>&1 | grep -c 'No space'"
    assert inside.shell(script, [as_root_of_the_host, change]).split() == ["1731", "7", "8", "1"]


@covers(".mounts[].options")
def test_an_option_that_nobody_knows_is_refused_by_the_filesystem(inside: Inside):
    error = inside.refused(with_mounts(mount("/x", "tmpfs", "tmpfs", "nosuch=1")))
    assert "nosuch" in error
    assert ".mounts[7]" in error


@covers("mount option tmpcopyup")
@pytest.mark.parametrize(("options", "seen"), [(["tmpcopyup"], "text 640 5:6"), ([], "")])
def test_a_tmpfs_starts_with_a_copy_of_what_it_hides(inside: Inside, options: list[str], seen: str):
    def fill(config: dict[str, Any]) -> None:
        config["mounts"].append(mount("/data", "tmpfs", "tmpfs", *options))

    path = inside.bundle(
        changed(as_root_of_the_host, fill),
        args=["sh", "-c", "cd /data; [ ! -e file ] || echo $(cat file) $(stat -c '%a %u:%g' file)"],
    )
    (path / "rootfs/data").mkdir()
    file = path / "rootfs/data/file"
    file.write_text("text\n")
    file.chmod(0o640)
    os.chown(file, 5, 6)
    assert inside.ctrun("run", "-b", path, inside.new_container_id()).text == seen


@covers(".mounts[].destination")
def test_mounts_are_made_in_their_order(inside: Inside):
    change = with_mounts(
        mount("/x", "tmpfs", "first"), mount("/x/y", "tmpfs", "second"), mount("/x", "tmpfs", "third", "mode=711")
    )
    assert inside.shell("ls /x; stat -c %a /x", change) == "711"


@covers(".mounts[].destination")
def test_a_destination_without_a_slash_is_below_the_root(inside: Inside):
    found = inside.result(
        "grep",
        "-c",
        " /relative/place ",
        "/proc/self/mountinfo",
        change=with_mounts(mount("relative/place", "tmpfs", "tmpfs")),
    )
    assert found.text == "1"


# -- idmapped mounts


def ids(inside_: int, outside: int, size: int = 1) -> dict[str, int]:
    return {"containerID": inside_, "hostID": outside, "size": size}


def user_namespace(*mappings: dict[str, int]) -> dict[str, Any]:
    """A container with a user namespace."""
    kinds = namespaces("pid", "network", "ipc", "uts", "mount", "user")
    return {"linux": {"namespaces": kinds, "uidMappings": list(mappings), "gidMappings": list(mappings)}}


@pytest.fixture
def owned(directory: Path, host_mount: HostMount) -> Path:
    """A directory with files of several owners, and the same in a mount below."""
    top = host_mount("owned")
    below = host_mount("owned/below")
    for place in (top, below):
        for uid, gid in ((0, 0), (5, 7), (3000, 3001)):
            file = place / f"of-{uid}"
            file.touch()
            os.chown(file, uid, gid)
    return top


OWNERS = "cd /var; stat -c %u:%g of-0 of-5 of-3000 below/of-0 below/of-5"
BOTH = ("uidMappings", "gidMappings")
MAPPING_ROWS = [f".mounts[].{name}[].{key}" for name in BOTH for key in ("containerID", "hostID", "size")]


@covers(*MAPPING_ROWS, "mount option {option}")
@pytest.mark.parametrize(
    ("option", "below"),
    [("idmap", ["0:0", "5:7"]), ("ridmap", ["1000:2000", "100:207"])],
)
def test_a_mount_has_its_own_mappings(inside: Inside, owned: Path, option: str, below: list[str]):
    entry = mount(
        "/var", "none", owned, "rbind", option,
        uidMappings=[ids(0, 1000), ids(5, 100, 10)],
        gidMappings=[ids(0, 2000), ids(5, 205, 10)],
    )  # fmt: skip
    # what is not mapped belongs to nobody
    assert inside.shell(OWNERS, with_mounts(entry)).splitlines() == ["1000:2000", "100:207", "65534:65534", *below]


@covers(*MAPPING_ROWS)
def test_mappings_alone_make_an_idmapped_mount(inside: Inside, owned: Path):
    entry = mount("/var", "none", owned, "rbind", uidMappings=[ids(0, 1000)], gidMappings=[ids(0, 2000)])
    assert inside.shell(OWNERS, with_mounts(entry)).splitlines()[0] == "1000:2000"


@covers("mount option {option}")
@pytest.mark.parametrize(("option", "below"), [("idmap", ["65534:65534", "65534:65534"]), ("ridmap", ["0:0", "5:7"])])
def test_without_mappings_a_mount_has_those_of_the_container(
    inside: Inside, owned: Path, option: str, below: list[str]
):
    change = [user_namespace(ids(0, 100000, 1000)), with_mounts(mount("/var", "none", owned, "rbind", option))]
    assert inside.shell(OWNERS, change).splitlines() == ["0:0", "5:7", "65534:65534", *below]


@covers(*MAPPING_ROWS, "mount option idmap")
def test_a_mount_of_a_user_namespace_may_have_its_own_mappings(inside: Inside, owned: Path):
    # file owner 5 is host id 100040, and that is id 40 inside
    mappings = {"uidMappings": [ids(5, 100040)], "gidMappings": [ids(7, 100041)]}
    entry = mount("/var", "none", owned, "rbind", "idmap", **mappings)
    seen = inside.shell(OWNERS, [user_namespace(ids(0, 100000, 1000)), with_mounts(entry)]).splitlines()
    assert seen[:2] == ["65534:65534", "40:41"]


@covers("mount option idmap")
def test_what_is_written_through_an_idmapped_mount_is_translated_back(inside: Inside, owned: Path):
    change = [
        user_namespace(ids(0, 100000, 1000)),
        with_mounts(mount("/var", "none", owned / "below", "bind", "idmap")),
    ]
    inside("touch", "/var/new", change=change)
    assert ((owned / "below/new").stat().st_uid, (owned / "below/new").stat().st_gid) == (0, 0)


@covers("mount option bind", "mount option idmap")
@pytest.mark.parametrize(("options", "owner"), [(["bind", "idmap"], "0:0"), (["bind"], "65534:65534")])
def test_mounts_below_the_source_can_be_left_out_with_a_user_namespace(
    inside: Inside, owned: Path, options: list[str], owner: str
):
    change = [user_namespace(ids(0, 100000, 1000)), with_mounts(mount("/var", "none", owned, *options))]
    script = "cd /var; stat -c %u:%g of-0; ls -A below; grep -c /var /proc/self/mountinfo"
    assert inside.shell(script, change).splitlines() == [owner, "1"]


def test_flags_that_a_user_namespace_could_take_off_are_no_price_for_leaving_mounts_out(
    inside: Inside, host_mount: HostMount
):
    top = host_mount("flagged", "rw,nodev")
    host_mount("flagged/below")
    change = [user_namespace(ids(0, 100000, 1000)), with_mounts(mount("/var", "none", top, "bind"))]
    assert f"the mounts below {top} can only be left out" in inside.refused(change)


@covers(".mounts[].uidMappings[].size")
def test_mappings_of_one_kind_alone_are_refused(inside: Inside, owned: Path):
    entry = mount("/var", "none", owned, "bind", uidMappings=[ids(0, 1000)])
    assert "must specify both uidMappings and gidMappings" in inside.refused(with_mounts(entry))


@covers("mount option idmap")
def test_without_mappings_anywhere_idmap_is_refused(inside: Inside, owned: Path):
    assert "needs a container with a user namespace" in inside.refused(
        with_mounts(mount("/var", "none", owned, "bind", "idmap"))
    )
