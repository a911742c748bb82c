"""Checkpoint and restore in this program; the engine's `checkpoint` and `restore` do them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctr_common.errors import ConfigError
from ctr_common.spec.namespaces import NAMESPACES
from ctr_supervisor.api.criu import SWITCHES
from ctr_supervisor.engine import checkpoint as checkpointing
from ctr_supervisor.engine import criu_options

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, CriuOptions
    from ctr_supervisor.api.types import Stats
    from ctr_supervisor.engine.container import Container


def common(options: CriuOptions) -> dict[str, Any]:
    """What the engine's options for checkpoint and restore have in common.

    Raises:
        ConfigError: there is no such type of namespaces.
    """
    empty = 0
    for kind in options.empty_namespaces:
        if kind not in NAMESPACES:
            raise ConfigError(f"namespace {kind!r} does not exist")
        empty |= NAMESPACES[kind][0]
    return {
        "image_path": options.image_path,
        "work_path": options.work_path,
        "flags": tuple(name for name in SWITCHES if getattr(options, name, False)),
        "cgroup_mode": options.cgroup_mode,
        "network_lock": options.network_lock,
        "empty_ns": empty,
    }


def checkpoint(container: Container, options: CheckpointOptions, *, pre_dump: bool = False) -> Stats:
    """Dumps a container; see `Container.checkpoint`."""
    wanted = criu_options.CheckpointOptions(
        **common(options),
        parent_path=options.parent_path,
        pre_dump=pre_dump,
        page_server=options.page_server,
        status_fd=options.status_fd,
        ghost_limit=options.ghost_limit,
    )
    return checkpointing.checkpoint(container.runtime, container.id, wanted)
