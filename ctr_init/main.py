"""`ctr-init-setup`: the setup worker by hand, without the engine.

ctr-init-setup --dry-run [--format text|json] BUNDLE     print what the worker would do
ctr-init-setup --pid PID [--console] BUNDLE              do it, in the namespaces of a waiting process
"""

import os
import sys

from ctr_common import fastjson, step_list
from ctr_common.bootstrap import u32
from ctr_common.channel import Channel
from ctr_common.errors import CtrError, UsageError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWCGROUP, CLONE_NEWUSER
from ctr_common.spec import load
from ctr_common.spec.namespaces import NAMESPACES
from ctr_common.version import VERSION
from ctr_init import steps, worker
from ctr_init.plan import SetupPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.types import Config

USAGE = """\
usage: ctr-init-setup --dry-run [--format text|json] BUNDLE
       ctr-init-setup --pid PID [--console] [--no-pivot] BUNDLE
       ctr-init-setup --help | --version

Sets up the namespaces of a container: mounts, devices, masks, sysctls, host
name, root.

  --dry-run         print the steps for the bundle's config.json and do nothing
  --format FORMAT   of the step list: text (default) or json
  --pid PID         carry the steps out in the namespaces of this process
  --console         allocate a terminal from the container's devpts, and tell
                    its name
  --no-pivot        move the root mount instead of using pivot_root
  --help            print this
  --version         print the version
"""


class Arguments:
    """The parsed command line."""

    __slots__ = ("bundle", "console", "dry_run", "format", "help", "no_pivot", "pid", "version")

    def __init__(self) -> None:
        self.bundle = ""
        self.console = False
        self.dry_run = False
        self.format = "text"
        self.help = False
        self.no_pivot = False
        self.pid = 0
        self.version = False


def parse(argv: "Sequence[str]") -> Arguments:
    """Parses the command line, without argv[0].

    Raises:
        UsageError: it is wrong.
    """
    arguments = Arguments()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        word, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word in ("--format", "--pid") and not equals:
            if not rest:
                raise UsageError(f"{word} needs a value")
            value = rest.pop(0)
        if word in ("--help", "-h"):
            arguments.help = True
        elif word in ("--version", "-v"):
            arguments.version = True
        elif word == "--dry-run":
            arguments.dry_run = True
        elif word == "--console":
            arguments.console = True
        elif word == "--no-pivot":
            arguments.no_pivot = True
        elif word == "--format":
            if value not in ("text", "json"):
                raise UsageError(f"unknown format {value!r}, expected text or json")
            arguments.format = value
        elif word == "--pid":
            if not value.isdigit() or int(value) == 0:
                raise UsageError(f"{value!r} is no pid")
            arguments.pid = int(value)
        elif word.startswith("-") or arguments.bundle:
            raise UsageError(f"unexpected argument {word!r}")
        else:
            arguments.bundle = word
    if not (arguments.help or arguments.version) and (not arguments.bundle or arguments.dry_run == bool(arguments.pid)):
        raise UsageError("give a bundle, and either --dry-run or --pid")
    return arguments


def plan_for(config: "Config", bundle: str, pid: int, pidfd: int, join_flags: int) -> SetupPlan:
    """A plan as the engine would make it, without cgroups."""
    linux = config.get("linux") or {}
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    return SetupPlan(
        config=config,
        bundle=bundle,
        rootfs=os.path.realpath(os.path.join(bundle, config["root"]["path"])),
        container_id=os.path.basename(bundle),
        state={
            "ociVersion": config["ociVersion"],
            "id": os.path.basename(bundle),
            "status": "creating",
            "pid": pid,
            "bundle": bundle,
        },
        pidfd=pidfd,
        pid=pid,
        join_flags=join_flags,
        new_user_ns=bool(linux and join_flags & CLONE_NEWUSER),
        cgroup_paths={},
        cgroup_mode="unified" if unified else "legacy",
        own_cgroup_ns=bool(join_flags & CLONE_NEWCGROUP),
        rootless=os.geteuid() != 0,
    )


def configured_flags(config: "Config") -> int:
    """CLONE_NEW* of all namespaces in the configuration."""
    flags = 0
    for entry in (config.get("linux") or {}).get("namespaces") or ():
        flags |= NAMESPACES[entry["type"]][0]
    return flags


def foreign_flags(pid: int) -> int:
    """CLONE_NEW* of the namespaces of a process that are not ours."""
    flags = 0
    for flag, name in NAMESPACES.values():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except FileNotFoundError:
            continue  # a kernel without it
    return flags


def dry_run(plan: SetupPlan, form: str) -> None:
    """Prints the step list."""
    described = steps.describe(plan)
    if form == "json":
        print(fastjson.dumps(described, indent="  "))
        return
    print(step_list.text(described), end="")


def run(plan: SetupPlan) -> None:
    """Runs the worker and answers it as the engine would, without hooks of the runtime.

    Raises:
        CtrError: what the worker reports.
    """
    started = worker.start(plan)
    try:
        with Channel(started.fd, "setup worker") as channel:
            while True:
                message = channel.expect(_kernel.MSG_WORKER_HOOKS, _kernel.MSG_CONSOLE, _kernel.MSG_WORKER_DONE)
                try:
                    if message.type == _kernel.MSG_WORKER_DONE:
                        print(f"done, home {message.text(_kernel.ATTR_HOME) or 'not known'}")
                        return
                    if message.type == _kernel.MSG_CONSOLE:
                        _report_console(message.take_fd(_kernel.ATTR_CONSOLE_MASTER_FD))
                    else:
                        print("the engine would run its hooks now")
                finally:
                    message.close()
                channel.send(_kernel.MSG_ACKNOWLEDGED, [(_kernel.ATTR_PID, u32(plan.pid))])
    finally:
        os.waitpid(started.pid, 0)


def _report_console(master: int) -> None:
    import fcntl
    import struct

    tiocgptn = 0x80045430
    number = struct.unpack("=I", fcntl.ioctl(master, tiocgptn, b"\0" * 4))[0]
    os.close(master)
    print(f"terminal /dev/pts/{number} of the container")


def main(argv: "Sequence[str] | None" = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        exit status: 0, 1 for a failure, 2 for a wrong command line.
    """
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"ctr-init-setup: {error}\n{USAGE}", file=sys.stderr, end="")
        return 2
    if arguments.help:
        print(USAGE, end="")
        return 0
    if arguments.version:
        print(f"ctr-init-setup {VERSION}")
        return 0
    try:
        bundle = os.path.abspath(arguments.bundle)
        config = load.load_config(bundle)
        if arguments.dry_run:
            plan = plan_for(config, bundle, 0, -1, configured_flags(config))
            plan.console = bool((config.get("process") or {}).get("terminal"))
            dry_run(plan, arguments.format)
            return 0
        pidfd = _kernel.pidfd_open(arguments.pid)
        plan = plan_for(config, bundle, arguments.pid, pidfd, foreign_flags(arguments.pid))
        plan.console = arguments.console
        plan.no_pivot = arguments.no_pivot
        run(plan)
    except CtrError as error:
        print(f"ctr-init-setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"ctr-init-setup: {CtrError.from_os_error(error)}", file=sys.stderr)
        return 1
    return 0
