"""CRIU for the tests: the host's own where it works, else Debian 13's, fetched once and kept in build/criu.

Debian 12's CRIU can't start on newer kernels. Debian 13's, with its libraries, is unpacked into a folder and started
through that folder's own dynamic linker, so that the host's C library is left alone. From Linux 6.16 on only unix
sockets have SO_PASSCRED, and CRIU before 4.2 fails on all others: where that matters, Debian 14's is used.

By hand: `python -m tests.support.criu` prints the path of the program, with `--inet` that of one for network sockets.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.support.runtime import ROOT

SUITE, NEWER_SUITE = "trixie", "forky"
PLACE = ROOT / "build/criu"
FETCH_LIMIT = 300

WRAPPER = """\
#!/bin/sh
# another Debian's criu, with the C library and the linker of that one
top={top}
exec "$top/usr/lib/{triplet}/{loader}" --library-path "$top/usr/lib/{triplet}" "$top/usr/sbin/criu" "$@"
"""


class Unavailable(Exception):
    """There is no CRIU to be had; the message says why."""


def _works(criu: str | Path) -> bool:
    try:
        return subprocess.run([criu, "check"], capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def _run(*argv: str | Path) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=FETCH_LIMIT, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise Unavailable(f"{argv[0]} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def _mirror() -> tuple[str, str]:
    """Address and keyring of Debian's own packages, as this host's apt has them."""
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
    releases = {"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
    for line in _run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines():
        uri, release, component, keyring = line.split("|")
        if release in releases and component == "main":
            return uri, keyring
    raise Unavailable("apt has no source for the main part of a Debian release")


def _fetch(place: Path, suite: str) -> None:
    uri, keyring = _mirror()
    apt = place / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for directory in ("lists/partial", "archives/partial"):
        (apt / directory).mkdir(parents=True)
    signed = f"[signed-by={keyring}] " if keyring.startswith("/") else ""
    (apt / "sources.list").write_text(f"deb {signed}{uri} {suite} main\n")
    (apt / "status").touch()
    options = [
        f"-oDir::State::Lists={apt}/lists",
        # as if nothing were installed: the C library and the linker are to come along
        f"-oDir::State::Status={apt}/status",
        f"-oDir::Cache={apt}",
        f"-oDir::Etc::SourceList={apt}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        "-oDir::Etc::Preferences=/dev/null",
        "-oDir::Etc::PreferencesParts=/dev/null",
        "-oAPT::Sandbox::User=root",
        "-oAPT::Install-Recommends=false",
        "-oAcquire::Languages=none",
        "-oDebug::NoLocking=1",
    ]
    _run("apt-get", "-q", *options, "update")
    _run("apt-get", "-q", "-y", *options, "--download-only", "install", "criu")
    top = place / "root.new"
    shutil.rmtree(top, ignore_errors=True)
    # merged /usr: the packages' /lib and /sbin are links there
    for name in ("bin", "lib", "lib64", "sbin"):
        (top / "usr" / name).mkdir(parents=True)
        (top / name).symlink_to(f"usr/{name}")
    for package in sorted((apt / "archives").glob("*.deb")):
        subprocess.run(
            f"dpkg-deb --fsys-tarfile '{package}' | tar -x -C '{top}' --keep-directory-symlink --no-same-owner"
            " --exclude=./usr/share --exclude=./dev --exclude=./etc --exclude=./var",
            shell=True,
            check=True,
            timeout=FETCH_LIMIT,
        )
    shutil.rmtree(apt)
    os.replace(top, place / "root")


def _unpacked(suite: str) -> Path:
    """The program that starts the CRIU of a release of Debian, fetched first if need be."""
    place = PLACE / suite
    place.mkdir(parents=True, exist_ok=True)
    wrapper = place / "criu"
    with (place / "lock").open("w") as lock:
        # several test runs may start at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        top = place / "root"
        if not top.exists():
            if os.geteuid() != 0:
                raise Unavailable("criu that works here is only fetched by root")
            try:
                _fetch(place, suite)
            except (OSError, subprocess.SubprocessError) as error:
                raise Unavailable(f"cannot fetch criu: {error}") from None
        loader = next((top / "usr/lib").glob("*-linux-gnu/ld-linux*.so.*"))
        text = WRAPPER.format(top=shlex.quote(str(top)), triplet=loader.parent.name, loader=loader.name)
        # A checkout that was moved has one with its old path.
        if not wrapper.exists() or wrapper.read_text() != text:
            partial = place / "criu.new"
            partial.write_text(text)
            partial.chmod(0o755)
            partial.rename(wrapper)
    return wrapper


@cache
def find() -> Path:
    """A CRIU that works on this host: $CTR_TEST_CRIU, the one on PATH, or Debian 13's in build/criu.

    Raises:
        Unavailable: there is none.
    """
    chosen = os.environ.get("CTR_TEST_CRIU")
    if chosen:
        return Path(chosen)
    found = shutil.which("criu")
    if found and _works(found):
        return Path(found)
    unpacked = _unpacked(SUITE)
    if not _works(unpacked):
        raise Unavailable("criu does not work with this kernel")
    return unpacked


@cache
def find_for_network() -> Path:
    """One that can save network sockets on this kernel.

    Raises:
        Unavailable: there is none.
    """
    with socket.socket() as probe:
        try:
            probe.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED)
            return find()
        except OSError:
            pass
    chosen = find()
    version = subprocess.run([chosen, "-V"], capture_output=True, text=True, timeout=60, check=False).stdout
    numbers = [int(part) for part in version.split()[1].split(".")] if version.startswith("Version: ") else [0]
    return chosen if numbers >= [4, 2] else _unpacked(NEWER_SUITE)


@cache
def has_feature(name: str) -> bool:
    """Whether the kernel has what a feature of CRIU needs.

    Args:
        name: as `criu check --feature` takes it, such as mem_dirty_track or uffd.
    """
    done = subprocess.run([find(), "check", "--feature", name], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    print(find_for_network() if "--inet" in sys.argv else find())
