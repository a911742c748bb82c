"""The requests `checkpoint` and `restore`: the command line's flags, read from a message."""

import os
from typing import TYPE_CHECKING, Any

from ctr_common.errors import ConfigError, ProtocolError
from ctr_common.kernel import _kernel
from ctr_supervisor.cli import checkpoint as checkpoint_verb
from ctr_supervisor.cli import criu_flags
from ctr_supervisor.cli import restore as restore_verb
from ctr_supervisor.cli.parser import BOOL, DURATION, INT, INTS, STRINGS, Arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_supervisor.cli.parser import Flag
    from ctr_supervisor.service.requests import Request

KINDS: dict[str, type[Any]] = {BOOL: bool, INT: int, DURATION: int, STRINGS: list, INTS: list}
# Paths in a message have no working directory that both sides know.
PATHS = ("image-path", "work-path")


def arguments_of(request: "Request", flags: "Sequence[Flag]") -> Arguments:
    """The fields of a request that are called as flags are, with `_` for `-`.

    Raises:
        ProtocolError: one has the wrong type.
        ConfigError: a path is not absolute, or the images' is missing.
    """
    values: dict[str, Any] = {}
    for flag in flags:
        name = flag.name.replace("-", "_")
        if name in request.packet.body and name != "status_fd":
            value = request.packet.get(name, KINDS.get(flag.kind, str))
            if flag.kind == STRINGS:
                value = request.packet.texts(name)
            if value is not None:
                values[flag.name] = value
    for path in PATHS:
        if path in values and not str(values[path]).startswith("/"):
            raise ConfigError(f"{path.replace('-', '_')} must be absolute", path=str(values[path]))
    if "image-path" not in values:
        raise ConfigError(f"{request.type} needs an image_path")
    return Arguments(values, [request.id], flags)


def checkpoint(request: "Request") -> None:
    """Saves a container; unless it is left running, nothing of it stays but the images."""
    from ctr_supervisor.engine import checkpoint as checkpointing

    arguments = arguments_of(request, checkpoint_verb.VERB.flags)
    result = checkpointing.checkpoint(request.runtime(), request.id, checkpoint_verb.options(arguments))
    request.answer(**result)


def restore(request: "Request") -> None:
    """A container goes on from its images."""
    from ctr_supervisor.engine import container as containers
    from ctr_supervisor.engine import restore as restoring
    from ctr_supervisor.engine.criu_options import RestoreOptions
    from ctr_supervisor.engine.options import CreateOptions

    bundle: str = request.packet.get("bundle", str, "")
    if not bundle.startswith("/"):
        raise ConfigError("the bundle's path must be absolute", path=bundle)
    arguments = arguments_of(request, restore_verb.VERB.flags)
    flags = RestoreOptions(
        image_path=arguments.string("image-path"),
        work_path=criu_flags.work_path(arguments),
        flags=criu_flags.switched_on(arguments, *restore_verb.SWITCHES),
        cgroup_mode=criu_flags.cgroups_mode(arguments),
        network_lock=criu_flags.network_lock(arguments),
        empty_ns=criu_flags.empty_namespaces(arguments),
        lsm_profile=arguments.string("lsm-profile"),
        lsm_mount_context=arguments.string("lsm-mount-context"),
    )
    options = CreateOptions(
        console_socket=arguments.string("console-socket"),
        pid_file=arguments.string("pid-file"),
        no_pivot=arguments.boolean("no-pivot"),
        detach=True,
    )
    take_stdio(request)
    os.chdir(bundle)
    results: list[dict[str, Any]] = []
    runtime = request.runtime()
    restoring.restore(runtime, request.id, bundle, options, flags, detach=True, on_restored=results.append)
    container = containers.load(runtime, request.id)
    pidfd = container.open_pidfd()
    if pidfd is None:
        raise ProtocolError(f"the process of container {request.id} has ended already")
    request.answer({"pidfd": pidfd}, **{**(results[0] if results else {}), "pid": container.pid})
    os.close(pidfd)


def take_stdio(request: "Request") -> None:
    """Makes the request's stdio that of this process: CRIU gives it to the container where it was inherited."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(request.packet.fd(name) if name in request.packet.fd_names else null, number)
    _kernel.close_range(null, null)
