"""Runs tests in the guest: `./dev test-vm [--short] [--keep] [--limit SECONDS] [PYTEST ARGUMENTS]`.

Builds what is missing, boots, runs pytest in the guest as root, and ends with pytest's exit status. Without a choice of
tests another guest is booted after that, with the supervisor as its init (as_init.py); in the short part only where it
is no emulated one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

from tests.vm.guest import as_init, tree
from tests.vm.guest.emulator import boot
from tests.vm.guest.workplace import DIRECTORY, build, own_directory, say

LIMIT = 5400
SHORT_LIMIT = 1200
# how much slower than the host an emulated guest is taken to be: limits of single commands grow with it
SLOWNESS = 8

# lint needs tools that the guest has not, packaging needs pip's index
EVERYTHING = ["tests", "--ignore=tests/lint", "--ignore=tests/install"]
SHORT = [*EVERYTHING, "-m", "vm_short"]


def _script(arguments: list[str], *, kvm: bool) -> str:
    """What the guest runs."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "CI": os.environ.get("CI") or "true",
        "CTR_TEST_SLOWNESS": "1" if kvm else str(SLOWNESS),
        "CTR_TEST_ALLOWED_SKIPS": f"{tree.PLACE}/tests/vm/allowed_skips.txt",
    }
    words = [f"{name}={value}" for name, value in environment.items()]
    limit = 120 if kvm else 120 * SLOWNESS
    pytest = [".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", f"--timeout={limit}", *arguments]
    return f"cd {tree.PLACE} && exec env -i {shlex.join(words)} {shlex.join(pytest)}"


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="./dev test-vm", description=__doc__, allow_abbrev=False)
    parser.add_argument("--short", action="store_true", help="only the tests marked vm_short")
    parser.add_argument("--keep", action="store_true", help="leave the guest running, and say how to get into it")
    parser.add_argument("--limit", type=float, help="seconds after which the tests are ended")
    return parser.parse_known_args()


def main() -> int:
    """Builds, boots, tests; returns the exit status."""
    options, arguments = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("test-vm: needs root, to make the guest's file system")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = any(not word.startswith("-") and "tests" in word for word in arguments)
    if not chosen:
        arguments += SHORT if options.short else EVERYTHING
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    run, held = own_directory(DIRECTORY)
    guest = None
    kept = False
    try:
        emulator, image = build(DIRECTORY, run)
        began = time.monotonic()
        guest = boot(emulator, image, run, held, outlive=options.keep)
        say(f"{'a' if guest.kvm else 'an emulated'} guest is up after {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        limit = options.limit or (SHORT_LIMIT if options.short else LIMIT)
        status = guest.run(_script(arguments, kvm=guest.kvm), limit)
        if status == 124:
            say(f"no end of the tests after {limit:.0f} s; end of the guest's console:\n{guest.tail()}")
        say(f"exit status {status} after {time.monotonic() - began:.0f} s of tests")
        if options.keep:
            kept = True
            say(f"the guest runs on; log in with: {shlex.join(guest.ssh())}")
            say(f"end it with: kill {guest.process.pid}; its files: {run}")
        elif not chosen and (guest.kvm or not options.short):
            # Emulated it takes more than a minute.
            guest.stop()
            return as_init.check(emulator, image, run) or status
        return status
    finally:
        if not kept:
            if guest is not None:
                guest.stop()
            shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.SubprocessError as error:
        sys.exit(f"test-vm: {error}")
