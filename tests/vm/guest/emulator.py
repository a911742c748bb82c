"""The running guest: QEMU, the wait for its ssh server, commands in it, and its end."""

from __future__ import annotations

import base64
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm.guest.image import Image

KVM_CREATE_VM = 0xAE01
MEMORY = 4096
# seconds, emulated and on the host's own processor
BOOT_LIMIT = 420
KVM_BOOT_LIMIT = 60


class NoBoot(Exception):
    """The guest did not come up; the message says what the emulator and the console showed."""


def kvm_offered() -> bool:
    """Whether this host offers to run a guest on its own processor; whether one then boots is another question."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(fcntl.ioctl(fd, KVM_CREATE_VM, 0))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def memory() -> int:
    """MiB for the guest: what its tests like, or half of what this host has."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return min(MEMORY, host // 2)


def boot(emulator: Sequence[str], image: Image, directory: Path, lock: int, *, outlive: bool) -> Guest:
    """A guest that is up: on the host's own processor where that works, else emulated. Arguments as for Guest."""
    for kvm in [True, False] if kvm_offered() else [False]:
        guest = Guest(emulator, image, directory, lock, kvm=kvm, outlive=outlive)
        try:
            guest.wait_until_up()
            return guest
        except NoBoot as error:
            if not kvm:
                raise SystemExit(f"test-vm: {error}") from None
        finally:
            if not guest.up:
                guest.stop()
    raise AssertionError


def end_with_parent() -> None:
    """In a child: has it ended when this process ends, however that comes."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Guest:
    """A guest that runs until `stop`.

    Args:
        emulator: the command of QEMU.
        image: what it boots.
        directory: of this run, for its key and logs; `tree.img` is there, the disk image with the project.
        lock: fd that shows that the directory is in use, handed on to the emulator.
        kvm: use the processor of this host.
        outlive: it goes on when this process ends.
    """

    def __init__(
        self, emulator: Sequence[str], image: Image, directory: Path, lock: int, *, kvm: bool, outlive: bool
    ) -> None:
        self.directory = directory
        self.kvm = kvm
        self.up = False
        self.console = directory / "console.log"
        self.port = _free_port()
        self.key = directory / "key"
        # argv of children must hold nothing secret: the private key stays in a file of this run
        if not self.key.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", self.key], check=True, timeout=30
            )
        public = base64.b64encode((directory / "key.pub").read_bytes()).decode()
        append = [
            "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off audit=0",
            "systemd.show_status=false net.ifnames=0 systemd.swap=no fsck.mode=skip",
            f"systemd.set_credential_binary=ssh.authorized_keys.root:{public}",
        ]
        accelerator = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "Haswell-v4"]
        argv = [
            *emulator,
            *accelerator,
            *["-smp", "2", "-m", str(memory()), "-nodefaults", "-display", "none", "-no-reboot"],
            *["-serial", f"file:{self.console}"],
            *["-kernel", image.kernel, "-initrd", image.initrd, "-append", " ".join(append)],
            *["-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap"],
            *["-drive", f"file={directory / 'tree.img'},format=raw,if=virtio,snapshot=on,cache=unsafe"],
            # restrict: nothing in the guest reaches this host or what is beyond
            *["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"],
            *["-device", "virtio-net-pci,netdev=net,romfile="],
            *["-device", "virtio-rng-pci"],
        ]
        self.log = directory / "emulator.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # the overlays that keep the images as they are
                env={**os.environ, "TMPDIR": str(directory)},
                pass_fds=[lock],
                start_new_session=True,
                preexec_fn=None if outlive else end_with_parent,  # noqa: PLW1509 — there are no threads
            )

    def _answers(self) -> bool:
        # the emulator itself accepts the connection at once: only the server's first line tells that it is there
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.settimeout(30)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_until_up(self) -> None:
        """Waits for the ssh server.

        Raises:
            NoBoot: there is none within the limit, or the emulator ended.
        """
        limit = KVM_BOOT_LIMIT if self.kvm else BOOT_LIMIT
        deadline = time.monotonic() + limit
        while not self._answers():
            if self.process.poll() is not None:
                raise NoBoot(f"the emulator ended: {self.log.read_text()[-3000:]}{self.tail()}")
            if time.monotonic() > deadline:
                raise NoBoot(f"no ssh server after {limit} s; {self.log.read_text()[-500:]}{self.tail()}")
            time.sleep(0.5)
        self.up = True

    def tail(self) -> str:
        """The end of what the guest printed on its console."""
        try:
            return self.console.read_text(errors="replace")[-3000:]
        except OSError as error:
            return str(error)

    def ssh(self, *command: str) -> list[str]:
        """The command line that runs a command in the guest as root."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60",
                   "ServerAliveInterval=30", "ServerAliveCountMax=10", "IdentitiesOnly=yes"]  # fmt: skip
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *flags, "-i", str(self.key), "-p", str(self.port), "root@127.0.0.1", *command]

    def run(self, script: str, limit: float) -> int:
        """Runs a shell script in the guest, its output on this process's own; returns its exit status.

        Args:
            script: for sh.
            limit: seconds; past them the status is 124.
        """
        with subprocess.Popen(self.ssh(script), stdin=subprocess.DEVNULL) as process:
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                return 124

    def stop(self) -> None:
        """Ends the guest; its disks are thrown away, so there is nothing to shut down in order."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
