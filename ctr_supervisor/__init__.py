"""Containers for Python programs: what libcontainer is to Go programs.

    import ctr_supervisor as containers

    with containers.create("/run/ctrun", "hello", config) as container:
        process = container.run(containers.Process(["/bin/echo", "hello"], init=True, stdout=containers.PIPE))
        print(process.communicate()[0])

`create`, `load` and `list` work in this very program. `connect` gives the same, and more, of a running
`ctr-supervisor`, and `ctr_supervisor.aio` both for asyncio. Every failure is a `CtrError`. See docs/API.md.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr_common.errors import (
        CgroupError,
        ConfigError,
        ContainerExists,
        ContainerNotFound,
        CriuError,
        CtrError,
        HookError,
        InitError,
        NotSupported,
        ProtocolError,
        SetupError,
        StateError,
        UsageError,
        WrongState,
    )
    from ctr_supervisor.api import aio, types
    from ctr_supervisor.api.client import Supervisor, connect
    from ctr_supervisor.api.container import Container
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.direct import create, load
    from ctr_supervisor.api.direct import list_containers as list  # noqa: A004 (as in libcontainer's and our own words)
    from ctr_supervisor.api.events import Event, EventStream
    from ctr_supervisor.api.notifications import Notification
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.stdio import DEVNULL, PIPE, STDOUT, Console

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CgroupError",
    "CheckpointOptions",
    "ConfigError",
    "Console",
    "Container",
    "ContainerExists",
    "ContainerNotFound",
    "CriuError",
    "CtrError",
    "Event",
    "EventStream",
    "HookError",
    "InitError",
    "NotSupported",
    "Notification",
    "Process",
    "ProtocolError",
    "RestoreOptions",
    "SetupError",
    "StateError",
    "Supervisor",
    "UsageError",
    "WrongState",
    "aio",
    "connect",
    "create",
    "list",
    "load",
    "types",
]

# Every import of the command line comes through this file. What the API needs costs more than a whole `ctrun run`, so
# its names are found when somebody asks for them (PEP 562).
_PLACES = {
    "api.aio": (),
    "api.types": (),
    "api.client": ("Supervisor", "connect"),
    "api.container": ("Container",),
    "api.criu": ("CheckpointOptions", "RestoreOptions"),
    "api.direct": ("create", "list", "load"),
    "api.events": ("Event", "EventStream"),
    "api.notifications": ("Notification",),
    "api.process": ("Process",),
    "api.stdio": ("DEVNULL", "PIPE", "STDOUT", "Console"),
}


def __getattr__(name: str) -> object:
    """Imports a name of the API when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    for place, names in _PLACES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{place}"), "list_containers" if name == "list" else name)
            break
        if place == f"api.{name}":
            value = import_module(f"{__name__}.{place}")
            break
    else:
        value = getattr(import_module("ctr_common.errors"), name)
    globals()[name] = value
    return value


def __dir__() -> "Iterable[str]":
    return sorted({*globals(), *__all__})
