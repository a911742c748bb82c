"""`list`: all containers under this state root."""

import os

from ctr_common.errors import ContainerNotFound, CtrError
from ctr_common.state import StateDir, ids
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.engine.state import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def list_containers(runtime: Runtime) -> "list[dict[str, Any]]":
    """Every container as `state` describes it, with its owner's name, sorted by id.

    One whose state can't be read is told of in the log and left out; one that vanishes meanwhile is left out.
    """
    found = []
    for container_id in ids(runtime.root):
        directory = StateDir(runtime.root, container_id)
        try:
            container = containers.Container(runtime, directory, directory.load())
            described = describe(container)
            described["owner"] = owner_of(directory.path)
        except (ContainerNotFound, FileNotFoundError):
            continue
        except CtrError as error:
            runtime.warn(f"load container {container_id}: {error}")
            continue
        found.append(described)
    return found


def owner_of(path: str) -> str:
    """Name of the user who owns a state directory, `#uid` for one without a name.

    Args:
        path: a container's state directory.
    """
    uid = os.stat(path).st_uid
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
