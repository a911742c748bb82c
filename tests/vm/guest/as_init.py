"""Boots the guest with the supervisor as its init: `python -m tests.vm.guest.as_init`.

The machine's process 1 can't be had in a test that runs in the guest, so this one looks on from outside: what the guest
says on its console, and that it switches itself off. The kernel is told to start a shell, which mounts the project,
leaves a driver behind (init_driver), and executes the supervisor in its place.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm.guest import image as images
from tests.vm.guest.emulator import end_with_parent, kvm_offered, memory
from tests.vm.guest.workplace import DIRECTORY, build, own_directory

LIMIT = 600
KVM_LIMIT = 90
COMMAND = (
    "mount -t ext4 -o ro /dev/vdb /ctrun; /bin/sh /ctrun/tests/vm/guest/init_driver & exec /ctrun/bin/ctr-supervisor"
)
# What the console has to show: who looks for what, as a pattern. Each list in its order.
EXPECTED = (
    (
        ("process 1 is the supervisor", r"driver: process 1 is ctr-supervisor"),
        (
            "it has mounted what is missing",
            r"driver: mounted /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup\s*$",
        ),
        ("it reaps orphans", r"driver: no zombies"),
        ("a container runs with its limits", r"driver: web running, limited to 8"),
        ("a container of its own runs", r'driver: stubborn running, made by "pid":1,'),
        ("a container obeys its stop signal", r"container: obeyed"),
        ("one that does not is killed", r'driver: event .*"event":"exited","id":"stubborn".*"status":137'),
        ("the machine is switched off", r"reboot: Power down"),
    ),
    (
        ("the status of who obeyed is told", r'driver: event .*"event":"exited","id":"web".*"status":3'),
        ("the machine is switched off after it", r"reboot: Power down"),
    ),
)
# What it must not show.
UNEXPECTED = (("the kernel does not panic", r"Kernel panic"), ("/dev has its links", r"driver: .* is missing"))


def boot(emulator: Sequence[str], image: images.Image, run: Path, *, kvm: bool) -> tuple[bool, str]:
    """Boots, and waits until the guest switches itself off; whether it did, and what was to be seen.

    Args:
        kvm: on this host's own processor.
    """
    console = run / "init-console.log"
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
    with (run / "init-emulator.log").open("w") as log:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(run)},
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 — there are no threads
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
    return ended, f"{(run / 'init-emulator.log').read_text()}{shown}"


def failed(console: str) -> list[str]:
    """Which expectations the console does not bear out."""
    left = []
    for lines in EXPECTED:
        at = 0
        for what, pattern in lines:
            found = re.compile(pattern, re.MULTILINE).search(console, at)
            if found is None:
                left.append(what)
            else:
                at = found.start()
    return left + [what for what, pattern in UNEXPECTED if re.search(pattern, console)]


def check(emulator: Sequence[str], image: images.Image, run: Path) -> int:
    """Boots, and looks at the console; returns an exit status, 0 for as it should be.

    Args:
        run: has the project as `tree.img`.
    """
    began = time.monotonic()
    ended, console = False, ""
    for kvm in [True, False] if kvm_offered() else [False]:
        # It may be offered and not work all the same.
        ended, console = boot(emulator, image, run, kvm=kvm)
        if ended:
            break
    left = ([] if ended else ["it switches itself off in time"]) + failed(console)
    if left:
        print(f"{console[-6000:]}\nas-init: not so: {'; '.join(left)}", flush=True)
        return 1
    held = sum(map(len, EXPECTED)) + len(UNEXPECTED)
    print(
        f"as-init: the supervisor was process 1 for {time.monotonic() - began:.0f} s; {held} checks passed", flush=True
    )
    return 0


def main() -> int:
    """Builds what is missing, boots, looks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.as_init", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where images are kept")
    directory = parser.parse_args().directory
    if os.geteuid() != 0:
        raise SystemExit("as-init: needs root, to make the guest's file system")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory.mkdir(parents=True, exist_ok=True)
    run, held = own_directory(directory)
    try:
        return check(*build(directory, run), run)
    finally:
        os.close(held)
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
