"""Boots the guest with the supervisor as its init: `python -m tests.vm.guest.as_init`.

The machine's process 1 can't be had in a test that runs in the guest, so this one looks on from outside: what the guest
says on its console, and that it switches itself off. The kernel is told to start a shell, which mounts the project,
leaves a driver behind (init_driver), and executes the supervisor in its place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.vm.guest import image as images
from tests.vm.guest import tree
from tests.vm.guest.__main__ import CHECKOUT, _own_directory
from tests.vm.guest.emulator import kvm_offered, memory

LIMIT = 600
KVM_LIMIT = 90
COMMAND = (
    "mount -t ext4 -o ro /dev/vdb /ctrun; /bin/sh /ctrun/tests/vm/guest/init_driver & exec /ctrun/bin/ctr-supervisor"
)
# What the console has to show, in this order.
EXPECTED = (
    "driver: process 1 is ctr-supervisor",
    "driver: mounted /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup",
    "driver: no zombies",
    "driver: container running",
    "container: obeyed",
    "reboot: Power down",
)


def boot(emulator: list[str], image: images.Image, run: Path, *, kvm: bool) -> tuple[bool, str]:
    """Boots, and waits until the guest switches itself off; whether it did, and what was to be seen.

    Args:
        kvm: on this host's own processor.
    """
    console = run / "console.log"
    accelerator = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "Haswell-v4"]
    append = f'root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off audit=0 init=/bin/sh -- -c "{COMMAND}"'
    argv = [
        *emulator,
        *accelerator,
        *["-smp", "2", "-m", str(memory()), "-nodefaults", "-display", "none", "-no-reboot"],
        *["-serial", f"file:{console}"],
        *["-kernel", image.kernel, "-initrd", image.initrd, "-append", append],
        *["-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap"],
        *["-drive", f"file={run / 'tree.img'},format=raw,if=virtio,snapshot=on,cache=unsafe"],
        *["-device", "virtio-rng-pci"],
    ]
    with (run / "emulator.log").open("w") as log:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(run)},
        )
        try:
            ended = process.wait(KVM_LIMIT if kvm else LIMIT) == 0
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    shown = console.read_text(errors="replace") if console.exists() else ""
    return ended, f"{(run / 'emulator.log').read_text()}{shown}"


def missing(console: str) -> list[str]:
    """The expected lines that the console does not show, or not in their order."""
    at = 0
    left = []
    for line in EXPECTED:
        found = console.find(line, at)
        if found < 0:
            left.append(line)
        else:
            at = found
    return left


def main() -> int:
    """Builds what is missing, boots, looks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.as_init", description=__doc__)
    parser.add_argument("--directory", type=Path, default=CHECKOUT / "build/vm", help="where images are kept")
    directory = parser.parse_args().directory
    if os.geteuid() != 0:
        raise SystemExit("as_init: needs root, to make the guest's file system")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory.mkdir(parents=True, exist_ok=True)
    run, held = _own_directory(directory)
    try:
        emulator = images.emulator(directory)
        image = images.image(directory)
        source = tree.build(CHECKOUT, image.root, directory, (directory / "image.key").read_text())
        images.make_disk(source, run / "tree.img", "1G")
        began = time.monotonic()
        ended, console = False, ""
        if kvm_offered():
            ended, console = boot(list(emulator), image, run, kvm=True)
        if not ended:
            # It may be offered and not work all the same.
            ended, console = boot(list(emulator), image, run, kvm=False)
    finally:
        os.close(held)
        shutil.rmtree(run, ignore_errors=True)
    left = missing(console)
    if left or not ended:
        print(f"{console[-6000:]}\nas_init: {'' if ended else 'did not switch off; '}not seen: {left}")
        return 1
    print(f"as_init: the guest lived and ended as it should in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
