"""Checkpoint and restore in this program; the engine's `checkpoint` and `restore` do them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctr_common.errors import ConfigError
from ctr_common.spec.namespaces import NAMESPACES
from ctr_supervisor.api.criu import SWITCHES
from ctr_supervisor.engine import checkpoint as checkpointing
from ctr_supervisor.engine import criu_options
from ctr_supervisor.engine import restore as restoring

if TYPE_CHECKING:
    from ctr_common.spec.types import Config
    from ctr_supervisor.api.criu import CheckpointOptions, CriuOptions, RestoreOptions
    from ctr_supervisor.api.making import KeptStateDir
    from ctr_supervisor.api.types import Stats
    from ctr_supervisor.engine.container import Container
    from ctr_supervisor.engine.create import Created
    from ctr_supervisor.engine.options import CreateOptions
    from ctr_supervisor.engine.runtime import Runtime


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
    container.runtime.criu = options.criu_path
    return checkpointing.checkpoint(container.runtime, container.id, wanted)


def restore(
    runtime: Runtime,
    directory: KeptStateDir,
    config: Config,
    bundle: str,
    options: CreateOptions,
    wanted: RestoreOptions,
) -> Created:
    """Makes the init process from images; see `Container.restore`.

    It becomes the child of this program's subreaper: to adopt it would adopt every other orphan below, too.

    Args:
        directory: its lock is held.
        config: with a process.
    """
    from ctr_supervisor.engine import criu_images

    flags = criu_options.RestoreOptions(
        **common(wanted), lsm_profile=wanted.lsm_profile, lsm_mount_context=wanted.lsm_mount_context
    )
    runtime.criu = wanted.criu_path
    criu_images.open_images(flags.image_path).close()
    restoration = restoring.Restoration(runtime, directory, config, bundle, options, flags, None)
    try:
        return restoration.restore(adopt=False)
    except BaseException:
        restoration.undo()
        raise
