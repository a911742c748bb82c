"""The guest's root file system and the emulator, made of Debian's packages and kept until their lists change."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path


def _words(text: str) -> list[str]:
    return text.split()


SUITE = "trixie"
BUILD_LIMIT = 1200

# What a test may want is in the image: the guest reaches no network.
PACKAGES = _words("""
    systemd-sysv dbus dbus-user-session libpam-systemd linux-image-cloud-amd64 openssh-server kmod apparmor
    criu crun runc docker.io docker-cli containerd podman conmon containernetworking-plugins netavark aardvark-dns
    passt slirp4netns fuse-overlayfs uidmap tini
    busybox-static ca-certificates iproute2 iptables nftables jq libcap2-bin procps psmisc strace util-linux attr
    gcc libc6-dev make musl-tools libseccomp-dev python3 python3-dev python3-venv
    python3-jeepney python3-jsonschema python3-msgpack python3-prometheus-client python3-protobuf python3-pyroute2
    python3-pytest python3-pytest-timeout python3-rich python3-setproctitle python3-setuptools python3-wheel
""")

# Debian 12's QEMU 7.2 crashes the guest's kernel (cmpxchg16b), so both releases use that of Debian 13.
EMULATOR_PACKAGES = ["qemu-system-x86"]

# Engines belong to the tests, which also make devices below /tmp (that of systemd is nodev), and an emulated processor
# has better things to do than the rest.
MASKED = _words("""
    tmp.mount docker.service docker.socket containerd.service podman.socket podman.service podman-auto-update.timer
    podman-restart.service apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
    e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer systemd-hwdb-update.service
    systemd-networkd-wait-online.service systemd-pcrphase.service getty@tty1.service
""")

FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 0\n/dev/vdb /ctrun ext4 defaults 0 0\n",
    "etc/systemd/network/user.network": "[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\n",
    # root is the only user, and the key is made for one run
    "etc/ssh/sshd_config.d/guest.conf": "PermitRootLogin prohibit-password\nUseDNS no\nUsePAM yes\nMaxSessions 100\n",
    # a small initrd is unpacked sooner
    "etc/initramfs-tools/conf.d/guest": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c\ncrc32c_generic\n",
}

SETUP = """
set -e
mkdir -p ctrun
for unit in {masked}; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
chroot . systemctl enable systemd-networkd.service ssh.service
chroot . update-initramfs -u
chroot . passwd -d root
"""


def mirror_in(uris: str) -> str:
    """The address of Debian's own packages in what `apt-get update --print-uris` says; empty if none is there."""
    releases = "bookworm|trixie|forky|sid|oldstable|stable|testing|unstable"
    found = re.search(rf"^'(\S+)/dists/(?:{releases})/main/binary-[^/]+/Packages", uris, re.MULTILINE)
    return found[1] if found else ""


def _mirror() -> str:
    """The address of Debian's own packages, as this host's apt has it: fresh hosts have no lists to look into yet."""
    command = ["apt-get", "update", "--print-uris"]
    uris = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    mirror = mirror_in(uris)
    if not mirror:
        raise SystemExit("test-vm: apt has no source for the main part of a Debian release")
    return mirror


def _apt_options() -> list[str]:
    """What this host's apt says about proxies, certificates and ages; a lost packet is no failure."""
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Force", "Acquire::Max")
    dump = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    lines = [line for line in dump.splitlines() if line.startswith(wanted)]
    return [f"--aptopt={line}" for line in [*lines, 'Acquire::Retries "5";']]


def _mmdebstrap(variant: str, packages: list[str], to: Path, log: Path, *options: str) -> None:
    shutil.rmtree(to, ignore_errors=True)
    with log.open("w") as file:
        status = subprocess.run(
            [
                "mmdebstrap",
                "--mode=root",
                f"--variant={variant}",
                f"--include={','.join(packages)}",
                *_apt_options(),
                *options,
                SUITE,
                str(to),
                _mirror(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=BUILD_LIMIT,
            check=False,
        ).returncode
    if status:
        raise SystemExit(f"test-vm: mmdebstrap failed ({log}):\n" + "\n".join(log.read_text().splitlines()[-20:]))


def _current(stamp: Path, key: str) -> bool:
    return stamp.exists() and stamp.read_text() == key


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _say(text: str) -> None:
    print(f"test-vm: {text}", flush=True)


def emulator(directory: Path) -> list[str]:
    """The command that runs QEMU from its own folder with its own libraries, which is unpacked first if need be.

    Args:
        directory: where what was built is kept.
    """
    top, stamp, key = directory / "emulator", directory / "emulator.key", _key(EMULATOR_PACKAGES)
    if not _current(stamp, key):
        began = time.monotonic()
        stamp.unlink(missing_ok=True)
        _mmdebstrap("extract", EMULATOR_PACKAGES, top, directory / "emulator.log")
        stamp.write_text(key)
        _say(f"unpacked the emulator in {time.monotonic() - began:.0f} s")
    libraries = f"{top}/usr/lib/x86_64-linux-gnu"
    loader = f"{libraries}/ld-linux-x86-64.so.2"
    return [loader, "--library-path", libraries, f"{top}/usr/bin/qemu-system-x86_64", "-L", f"{top}/usr/share/qemu",
            "-L", f"{top}/usr/share/seabios"]  # fmt: skip


class Image:
    """The guest's root: `root` the directory, `disk` the ext4 image, `kernel` and `initrd` what is booted."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.disk = directory / "root.img"
        self.kernel = directory / "vmlinuz"
        self.initrd = directory / "initrd.img"


def image(directory: Path) -> Image:
    """The guest's root file system, made first if there is none of these packages and files.

    Args:
        directory: where what was built is kept.
    """
    made = Image(directory)
    stamp, key = directory / "image.key", _key(PACKAGES, MASKED, FILES, SETUP)
    if _current(stamp, key):
        return made
    began = time.monotonic()
    _say("building the guest (a few minutes)")
    stamp.unlink(missing_ok=True)
    overlay = directory / "overlay"
    shutil.rmtree(overlay, ignore_errors=True)
    for name, text in FILES.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    setup = directory / "setup"
    setup.write_text(SETUP.format(masked=" ".join(MASKED)))
    _mmdebstrap(
        "minbase",
        PACKAGES,
        made.root,
        directory / "image.log",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f'--customize-hook=cp -r {shlex.quote(str(overlay))}/. "$1"',
        f'--customize-hook=cd "$1" && sh {shlex.quote(str(setup))}',
    )
    shutil.rmtree(overlay)
    for link, to in (("vmlinuz", made.kernel), ("initrd.img", made.initrd)):
        shutil.copyfile(made.root / os.readlink(made.root / link).lstrip("/"), to)
    make_disk(made.root, made.disk, "6G", uuid="")
    stamp.write_text(key)
    _say(f"built the guest in {time.monotonic() - began:.0f} s")
    return made


def make_disk(source: Path, disk: Path, size: str, uuid: str = "") -> None:
    """Makes a disk image of a directory; the file is sparse.

    Args:
        source: the directory.
        disk: the file to make.
        size: as mkfs.ext4 takes it.
        uuid: of the file system; a random one if empty.
    """
    disk.unlink(missing_ok=True)
    argv = [
        "mkfs.ext4",
        "-q",
        "-m",
        "0",
        "-O",
        "^has_journal",
        *(["-U", uuid] if uuid else []),
        "-d",
        source,
        disk,
        size,
    ]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(
        argv,
        check=True,
        timeout=BUILD_LIMIT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": path},
    )
