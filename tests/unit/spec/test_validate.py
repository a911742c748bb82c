"""ctr_common/spec/validate.py: what a configuration means, in runc's words where it has some."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_common.errors import UsageError
from ctr_common.spec import validate
from ctr_common.spec.default import default_config
from tests.unit.spec.changes import (
    ONE_ID,
    Change,
    both,
    changed,
    drop,
    problems_of,
    put,
    without_namespace,
)


def test_the_default_configuration_is_fine(bundle: Path) -> None:
    assert validate.check(default_config(), str(bundle), rootless=False) == []


def test_the_rootless_default_configuration_is_fine(bundle: Path) -> None:
    assert validate.check(default_config(rootless=True), str(bundle), rootless=True) == []


ACCEPTED: dict[str, Change] = {
    "a pre-release version": put("ociVersion", "1.0.2-dev"),
    "a version with build metadata": put("ociVersion", "1.2.0+dev"),
    "a mount over the same destination": lambda c: c["mounts"].append({**c["mounts"][1], "source": "other"}),
    "a hook with a timeout": put("hooks", {"prestart": [{"path": "/bin/true", "timeout": 1}]}),
    "an unknown kind of hook": put("hooks", {"later": {"path": 1}}),
    "an idmapped mount": lambda c: c["mounts"].append(
        {"destination": "/x", "source": "/", "options": ["bind"], "uidMappings": ONE_ID, "gidMappings": ONE_ID}
    ),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(change: Change, bundle: Path) -> None:
    assert problems_of(changed(change), bundle) == []


REFUSED: dict[str, tuple[Change, str, str]] = {
    "a version that is none": (put("ociVersion", "1.0"), ".ociVersion", 'a semantic version such as 1.3.0, got "1.0"'),
    "a later major version": (
        put("ociVersion", "2.0.0"),
        ".ociVersion",
        "version 2.0.0 is not supported, expected 1.x",
    ),
    "no root": (drop("root"), ".root", "root must be specified"),
    "an empty root": (put("root", "path", ""), ".root.path", "must not be empty"),
    "a root that is not there": (put("root", "path", "none"), ".root.path", "/none: no such file or directory"),
    "a hostname without uts": (
        without_namespace("uts"),
        ".hostname",
        "unable to set hostname without a private UTS namespace",
    ),
    "a domainname without uts": (
        both(without_namespace("uts"), drop("hostname"), put("domainname", "a")),
        ".domainname",
        "unable to set domainname without a private UTS namespace",
    ),
    "a hostname that is too long": (put("hostname", "x" * 65), ".hostname", "longer than 64 bytes"),
    "the same mount twice": (
        lambda c: c["mounts"].append(dict(c["mounts"][0])),
        ".mounts[7]",
        "is the same mount as .mounts[0], on /proc",
    ),
    "a mount without a destination": (
        put("mounts", 0, "destination", ""),
        ".mounts[0].destination",
        "must not be empty",
    ),
    "a bind mount without a source": (
        lambda c: c["mounts"].append({"destination": "/x", "options": ["rbind"]}),
        ".mounts[7].source",
        "is missing",
    ),
    "an idmapped mount that is not a bind mount": (
        both(put("mounts", 0, "uidMappings", ONE_ID), put("mounts", 0, "gidMappings", ONE_ID)),
        ".mounts[0]",
        "id-mapped mounts must be bind mounts",
    ),
    "a mount with half of an id map": (
        lambda c: c["mounts"].append({"destination": "/x", "source": "/", "options": ["bind"], "uidMappings": ONE_ID}),
        ".mounts[7].gidMappings",
        "id-mapped mounts must specify both",
    ),
    "a hook with a relative path": (
        put("hooks", {"poststop": [{"path": "a"}]}),
        ".hooks.poststop[0].path",
        "expected an absolute path",
    ),
    "a hook without time": (
        put("hooks", {"prestart": [{"path": "/a", "timeout": 0}]}),
        ".hooks.prestart[0].timeout",
        "above 0, got 0",
    ),
    "an annotation without a key": (put("annotations", {"": "x"}), '.annotations[""]', "must not be empty"),
}


@pytest.mark.parametrize(("change", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(change: Change, path: str, words: str, bundle: Path) -> None:
    found = problems_of(changed(change), bundle)
    assert found
    assert found[0][0] == path
    assert words in found[0][1]


def test_a_root_that_is_a_file_is_refused(bundle: Path) -> None:
    (bundle / "file").touch()
    ((path, message),) = problems_of(changed(put("root", "path", "file")), bundle)
    assert (path, message) == (".root.path", f"invalid rootfs: {bundle}/file is not a directory")


@pytest.mark.parametrize("absolute", [False, True])
def test_a_root_that_is_a_symlink_is_refused(bundle: Path, absolute: bool) -> None:
    (bundle / "link").symlink_to("rootfs")
    name = str(bundle / "link") if absolute else "link"
    ((path, message),) = problems_of(changed(put("root", "path", name)), bundle)
    assert (path, message) == (".root.path", "invalid rootfs: not an absolute path, or a symlink")


def test_a_root_below_a_symlinked_directory_is_refused(bundle: Path) -> None:
    (bundle / "real").mkdir()
    (bundle / "real" / "rootfs").mkdir()
    (bundle / "link").symlink_to("real")
    assert problems_of(changed(put("root", "path", "link/rootfs")), bundle)


def test_the_bundle_itself_may_be_reached_by_a_symlink(bundle: Path) -> None:
    link = bundle / "link"
    link.symlink_to(bundle)
    assert problems_of(default_config(), link) == []
    assert validate.rootfs_path(default_config(), str(link)) == str(bundle / "rootfs")


def test_an_unclean_root_path_is_made_clean(bundle: Path) -> None:
    config = changed(put("root", "path", f"../{bundle.name}//rootfs/."))
    assert problems_of(config, bundle) == []
    assert validate.rootfs_path(config, str(bundle)) == str(bundle / "rootfs")


def test_a_root_elsewhere_is_taken_from_its_absolute_path(bundle: Path) -> None:
    (bundle / "sub").mkdir()
    config = changed(put("root", "path", str(bundle / "rootfs")))
    assert problems_of(config, bundle / "sub") == []


def test_a_relative_mount_destination_is_a_warning(bundle: Path) -> None:
    config = changed(put("mounts", 0, "destination", "proc"))
    assert validate.check(config, str(bundle), rootless=False) == [
        '.mounts[0].destination: "proc" is not absolute, taken as /proc'
    ]


@pytest.mark.parametrize("container_id", ["a", "A-1_b.c+d", "-x", "...", "a" * 255])
def test_an_id_of_letters_digits_and_a_few_others_is_fine(container_id: str) -> None:
    validate.validate_id(container_id)


@pytest.mark.parametrize("container_id", ["a/b", ".", "..", "a b", "ä", "a:b", "a\n", "../a", "a\0"])
def test_another_id_is_refused(container_id: str) -> None:
    with pytest.raises(UsageError, match="invalid container ID format: "):
        validate.validate_id(container_id)


def test_an_empty_id_has_runcs_words() -> None:
    with pytest.raises(UsageError, match="container id cannot be empty"):
        validate.validate_id("")


def test_an_id_that_cannot_be_a_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 255"):
        validate.validate_id("a" * 256)
