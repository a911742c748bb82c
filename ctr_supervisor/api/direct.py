"""Containers of this very program: making, finding and listing them."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ctr_common import fastjson
from ctr_common.errors import ConfigError, ContainerNotFound, CtrError, StateError
from ctr_common.spec import load as spec_load
from ctr_common.spec import validate
from ctr_common.state import CONFIG_FILE, StateDir, ids
from ctr_supervisor.api.container import Container
from ctr_supervisor.api.direct_container import DirectContainer
from ctr_supervisor.api.direct_engine import errors_of_the_tree, logger, runtime_for
from ctr_supervisor.engine.container import PENDING
from ctr_supervisor.engine.create import utc_now

if TYPE_CHECKING:
    from ctr_common.spec import types as spec_types
    from ctr_supervisor.api.types import Config, Network


def create(
    root: str,
    id: str,
    config: Config,
    *,
    bundle: str | None = None,
    networks: Sequence[Network] = (),
    systemd_cgroup: bool = False,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
) -> Container:
    """Takes an id for a container, which is made when its init process is started.

    Args:
        root: state root, such as /run/ctrun: an absolute path, made if missing. One root is one set of containers,
            the same that `ctrun --root` shows.
        id: letters, digits and _+-., at most 255 of them.
        config: as in config.json (runtime-spec 1.3); copied. Its `process` may be missing: whoever starts the init
            process says what it is, and `process` is where that leaves something open.
        bundle: directory that relative paths in the configuration start at, and that hooks are told of; None for the
            one that holds root.path, which must be absolute then.
        networks: networks of libcontainer's kind.
        systemd_cgroup: let systemd make the cgroups.
        no_pivot: move the root instead of pivot_root, for a root file system on a ramdisk.
        no_new_keyring: keep the session keyring of this program.

    Returns:
        The container, "stopped" until its init process is started. To be destroyed in the end.

    Raises:
        UsageError: the id or the root is none.
        ConfigError: the configuration asks for something that is not possible; `problems` has all of it.
        ContainerExists: the id is taken.
        StateError: the state root can't be written.

    Source: libcontainer's Create.
    """
    validate.validate_id(id)
    root = absolute(root)
    checked = spec_load.config_of(copy.deepcopy(dict(config)))
    if bundle is None:
        bundle = os.path.dirname((checked.get("root") or {}).get("path", ""))
        if not bundle.startswith("/"):
            raise ConfigError("must be absolute where there is no bundle", json_path=".root.path")
    bundle = os.path.abspath(bundle)
    runtime = runtime_for(root, systemd_cgroup=systemd_cgroup)
    # What its process will be is checked when that is known; until then something that is certainly possible.
    whole = cast("spec_types.Config", {"process": {"args": ["-"], "cwd": "/"}, **checked})
    for warning in validate.check(whole, bundle, rootless=runtime.rootless_euid):
        runtime.warn(warning)
    plain: list[Any] = [dict(network) for network in networks]
    if plain:
        from ctr_supervisor.network.config import check

        plain = [*check(plain, checked)]
    directory = StateDir(root, id)
    with errors_of_the_tree():
        directory.make()
        try:
            directory.write(CONFIG_FILE, fastjson.dumps(checked).encode("utf-8", "surrogateescape"))
            directory.save(
                {
                    "id": id,
                    "init_process_pid": 0,
                    "init_process_start": 0,
                    "prepared": False,
                    "created": utc_now(),
                    "bundle": bundle,
                    "rootfs": validate.rootfs_path(checked, bundle),
                    "annotations": checked.get("annotations") or {},
                    "cgroup_paths": {},
                    PENDING: {
                        "networks": plain,
                        "systemd_cgroup": systemd_cgroup,
                        "no_pivot": no_pivot,
                        "no_new_keyring": no_new_keyring,
                    },
                }
            )
            return DirectContainer(root, id)
        except BaseException:
            directory.remove()
            raise
        finally:
            directory.unlock()


def load(root: str, id: str) -> Container:
    """A container that is there, whoever made it.

    Args:
        root: state root.
        id: of the container.

    Raises:
        ContainerNotFound: there is none of that id.
        StateError: its state can't be read.

    Source: libcontainer's Load.
    """
    validate.validate_id(id)
    container = DirectContainer(absolute(root), id)
    container.engine()
    return container


def list_containers(root: str) -> list[Container]:
    """All containers under a state root, sorted by id, whoever made them.

    One whose state can't be read is told of in the log (logger `ctr_supervisor`) and left out.

    Args:
        root: state root; one that does not exist has none.

    Raises:
        StateError: the state root can't be read.
    """
    found: list[Container] = []
    root = absolute(root)
    for name in ids(root):
        try:
            found.append(load(root, name))
        except ContainerNotFound:
            continue
        except CtrError as error:
            logger.warning("load container %s: %s", name, error)
    return found


def absolute(root: str) -> str:
    """A state root as the engine wants it.

    Raises:
        StateError: it is not absolute, or is / itself.
    """
    root = os.fspath(root)
    if not root.startswith("/") or not root.strip("/"):
        raise StateError(f"a state root is an absolute path, and not /; got {root!r}")
    return os.path.normpath(root)
