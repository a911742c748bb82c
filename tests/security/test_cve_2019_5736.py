"""CVE-2019-5736: the container overwrote the runtime's executable by /proc/PID/exe of the process that enters it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.hostile import FOREVER, plain, running
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

# Holds the runtime's file open, waits until nobody executes it any more, and writes.
ATTACK = """
for process in /proc/[0-9]*; do
    case $(readlink $process/exe) in *ctr-init*) victim=$process ;; esac
done
[ -n "$victim" ] && echo found || exit
exec 3<$victim/exe
echo over >$victim/exe
: >/hold &
while [ -e $victim/exe ]; do :; done
echo over >/proc/self/fd/3 && echo overwritten
echo over | dd of=/proc/self/fd/3 conv=notrunc && echo overwritten
"""


def binary_of(ctrun: Runtime) -> Path:
    """The file that every start of a container reads."""
    return ctrun.path.resolve().parent / "ctr-init"


@pytest.mark.needs_direct
def test_the_runtimes_executable_cannot_be_written_from_a_container(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str]
):
    binary = binary_of(ctrun)
    before = binary.read_bytes()
    container = new_container_id()
    made = bundle(plain, args=FOREVER, writable=True)
    os.mkfifo(made / "rootfs/hold")
    try:
        with running(ctrun, made, container):
            # The image's program is /proc/self/exe: the runtime executes itself, as a process of the container that
            # can be looked into. It stays until the fifo is opened.
            ctrun("exec", "-d", container, "/proc/self/exe", "decode", "/hold").ok()
            result = ctrun("exec", container, "sh", "-c", ATTACK)
            assert "found" in result.out, repr(result)
            assert "overwritten" not in result.out, repr(result)
        assert binary.read_bytes() == before
    finally:
        if binary.read_bytes() != before:
            binary.write_bytes(before)


@pytest.mark.needs_direct
def test_a_script_of_the_image_that_names_the_runtime_as_its_interpreter_gets_a_copy_of_its_own(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str]
):
    """`#!/proc/self/exe`, the original exploit: what runs is no file of the host, and two starts do not share it."""
    container = new_container_id()
    made = bundle(plain, args=FOREVER, writable=True)
    script = made / "rootfs/bin/evil"
    script.write_text("#!/proc/self/exe run\n")
    script.chmod(0o755)
    os.mkfifo(made / "rootfs/hold")
    with running(ctrun, made, container) as state:
        files = []
        for _ in range(2):
            ctrun("exec", "-d", container, "/proc/self/exe", "decode", "/hold").ok()
        own = Path(f"/proc/{state['pid']}/ns/pid").readlink()

        def executing() -> list[Path]:
            return [path for path in Path("/proc").glob("[0-9]*/exe") if is_runtime(path, own)]

        until("two of them", lambda: len(executing()) == 2)
        files = [os.stat(path) for path in executing()]
        assert len({(status.st_dev, status.st_ino) for status in files}) == 2
        binary = os.stat(binary_of(ctrun))
        assert all((status.st_dev, status.st_ino) != (binary.st_dev, binary.st_ino) for status in files)
        # the shebang form ends at once, since the runtime's program takes no script for a bootstrap message
        assert ctrun("exec", container, "/bin/evil").code != 0


def is_runtime(path: Path, namespace: Path) -> bool:
    """Whether a process executes ctr-init in a pid namespace."""
    try:
        return "ctr-init" in str(path.readlink()) and (path.parent / "ns/pid").readlink() == namespace
    except OSError:
        return False
