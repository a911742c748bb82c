"""Seccomp profiles: the filter to load into a container's process, and its user notification fd.

A container start needs a filter that most often was compiled for an earlier container: it comes from a cache by
content (`seccomp_cache`). Only on a miss are the compiler (`seccomp_compile`) and libseccomp loaded.
"""

from ctr_common.errors import ConfigError, CtrError, NotSupported
from ctr_common.spec.seccomp_names import FLAGS, NEW_LISTENER, TSYNC_ESRCH
from ctr_supervisor.engine import seccomp_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ctr_common.spec.types import Seccomp

JSON_PATH = ".linux.seccomp"


class CompiledFilter:
    """What ctr-init needs to load a filter.

    Args:
        bpf: struct sock_filter[].
        flags: SECCOMP_FILTER_FLAG_* for seccomp(2).
        listener: the filter has SCMP_ACT_NOTIFY rules, and NEW_LISTENER is among the flags.
    """

    __slots__ = ("bpf", "flags", "listener")

    def __init__(self, bpf: bytes, flags: int, listener: bool) -> None:
        self.bpf = bpf
        self.flags = flags
        self.listener = listener


def compile_filter(seccomp: "Seccomp", cache_dir: str = "", json_path: str = JSON_PATH) -> "CompiledFilter | None":
    """The filter of a profile, from the cache or compiled.

    Args:
        seccomp: `.linux.seccomp` of a configuration.
        cache_dir: directory of compiled filters, made if missing; "" for none.
        json_path: where the profile stands, for errors.

    Returns:
        None for a profile that says nothing (no default action and no syscalls), as runc takes it.

    Raises:
        ConfigError: a name in the profile is unknown, or a rule is not possible.
        NotSupported: libseccomp or the kernel lacks what the profile asks for.
    """
    if not seccomp.get("defaultAction") and not seccomp.get("syscalls"):
        return None
    cache = seccomp_cache.Cache(cache_dir, seccomp) if cache_dir else None
    found = cache.load() if cache else None
    if found is None:
        from ctr_supervisor.engine import seccomp_compile

        found = seccomp_compile.compile_profile(seccomp, json_path)
        if cache:
            cache.store(*found)
    bpf, listener = found
    if listener and not seccomp.get("listenerPath"):
        raise ConfigError("listenerPath is not set", json_path=f"{json_path}.listenerPath")
    return CompiledFilter(bpf, filter_flags(seccomp, listener, json_path), listener)


def filter_flags(seccomp: "Seccomp", listener: bool, json_path: str = JSON_PATH) -> int:
    """SECCOMP_FILTER_FLAG_* to load the filter of a profile with.

    A profile without `flags` gets SPEC_ALLOW, as with runc since 1.2: the speculation mitigations that a filter
    otherwise brings cost much and protect little (kernel commit 2f46993d83ff). An empty list means no flags.

    Args:
        seccomp: the profile.
        listener: whether its filter notifies.
        json_path: where the profile stands, for errors.

    Raises:
        ConfigError: a flag is unknown.
        NotSupported: this kernel lacks a flag.
    """
    names = seccomp.get("flags")
    if names is None:
        flags = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    else:
        flags = 0
        for i, name in enumerate(names):
            if name not in FLAGS:
                raise ConfigError(f'seccomp flag "{name}" is not known to ctrun', json_path=f"{json_path}.flags[{i}]")
            flags |= FLAGS[name]
    killable = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    if not listener:
        # The kernel refuses this flag without a listener, to which alone it has a meaning.
        return flags & ~killable
    flags |= NEW_LISTENER
    if flags & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        # With both, only TSYNC_ESRCH leaves the return value to the listener's fd (seccomp(2)).
        flags |= TSYNC_ESRCH
    if flags & killable:
        _require_flags(flags, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", f"{json_path}.flags")
    return flags


def _require_flags(flags: int, name: str, json_path: str) -> None:
    from ctr_supervisor.engine.seccomp_compile import load_library

    if not load_library(json_path).flags_available(flags):
        raise NotSupported(f"this kernel lacks {name}", json_path=json_path)


def send_listener(
    listener_path: str, fd: int, state: "Mapping[str, Any]", metadata: str = "", pid: "int | None" = None
) -> None:
    """Hands a seccomp user notification fd to the agent that a profile names.

    The agent gets one message on a stream socket: the container process state of the runtime-spec (config-linux,
    "The Container Process State") as JSON, with the fd.

    Args:
        listener_path: `listenerPath` of the profile, a path on the host.
        fd: the notification fd; stays the caller's.
        state: OCI state of the container.
        metadata: `listenerMetadata` of the profile.
        pid: the process that the filter is on; the container's own if None.

    Raises:
        CtrError: the agent cannot be reached or went away.
    """
    import os

    from ctr_common import fastjson
    from ctr_common.kernel import _kernel

    message: dict[str, Any] = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": state["pid"] if pid is None else pid,
        "state": dict(state),
    }
    if metadata:
        message["metadata"] = metadata
    data = fastjson.dumps(message).encode()
    step = "failed to connect with seccomp agent specified in the seccomp profile"
    try:
        agent = _kernel.connect_unix(listener_path)
        try:
            step = "cannot send seccomp fd"
            sent = _kernel.sendmsg(agent, data, [fd])
            while sent < len(data):
                sent += _kernel.sendmsg(agent, data[sent:])
        finally:
            os.close(agent)
    except OSError as error:
        raise CtrError.from_os_error(error, step=step, path=listener_path) from None
