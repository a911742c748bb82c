"""Peers that the host's distribution does not have in a release that works everywhere: Debian 13's crun, unpacked.

It goes into build/bench/crun with its own C library and linker, which are written into the program (patchelf), so that
it starts like any installed program and the host's libraries are left alone.
"""

import shutil
import subprocess
from pathlib import Path

from bench.world import BUILT

SUITE = "trixie"
LIMIT = 300


class Unavailable(Exception):
    """A peer can't be had; the text says why."""


def _run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Unavailable(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def _archive() -> tuple[str, str]:
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
    for line in _run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines():
        uri, release, component, keyring = line.split("|")
        if component == "main" and "-" not in release:
            return uri, keyring
    raise Unavailable("apt has no source for the main part of a Debian release")


def unpack(package: str) -> Path:
    """A program of Debian 13, fetched unless it is there already.

    Args:
        package: which has a program of its name in /usr/bin.

    Returns:
        The program.

    Raises:
        Unavailable: it can't be had.
    """
    place = BUILT / package
    program = place / f"usr/bin/{package}"
    if program.exists():
        return program
    apt = BUILT / f"{package}.apt"
    top = BUILT / f"{package}.new"
    for directory in (apt, top):
        shutil.rmtree(directory, ignore_errors=True)
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    uri, keyring = _archive()
    signed = f"[signed-by={keyring}] " if keyring.startswith("/") else ""
    (apt / "sources.list").write_text(f"deb {signed}{uri} {SUITE} main\n")
    (apt / "status").touch()
    options = [
        f"-oDir::State::Lists={apt}/lists",
        # as if nothing were installed: the C library is to come along
        f"-oDir::State::Status={apt}/status",
        f"-oDir::Cache={apt}",
        f"-oDir::Etc::SourceList={apt}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        "-oDir::Etc::PreferencesParts=/dev/null",
        "-oAPT::Sandbox::User=root",
        "-oAPT::Install-Recommends=false",
        "-oAcquire::Languages=none",
        "-oDebug::NoLocking=1",
    ]
    _run("apt-get", "-q", *options, "update")
    _run("apt-get", "-q", "-y", *options, "--download-only", "install", package)
    (top / "usr/lib").mkdir(parents=True)
    (top / "usr/lib64").mkdir()
    for name in ("lib", "lib64"):
        (top / name).symlink_to(f"usr/{name}")
    for archive in sorted((apt / "archives").glob("*.deb")):
        _run(
            "sh",
            "-c",
            f"dpkg-deb --fsys-tarfile '{archive}' | tar -x -C '{top}' --keep-directory-symlink --no-same-owner"
            " --exclude=./usr/share --exclude=./dev --exclude=./etc --exclude=./var",
        )
    loader = next((top / "usr/lib").glob("*-linux-gnu/ld-linux*.so.*"))
    libraries = place / loader.parent.relative_to(top)
    _run(
        "patchelf",
        "--set-interpreter",
        libraries / loader.name,
        "--force-rpath",
        "--set-rpath",
        libraries,
        top / f"usr/bin/{package}",
    )
    shutil.rmtree(apt)
    shutil.rmtree(place, ignore_errors=True)
    top.rename(place)
    return program
