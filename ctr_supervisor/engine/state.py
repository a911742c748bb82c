"""`state`: one container as JSON."""

from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def state(runtime: Runtime, container_id: str) -> "dict[str, Any]":
    """The container in the shape that engines parse.

    Raises:
        ContainerNotFound: there is none of that id.
    """
    return describe(containers.load(runtime, container_id))


def describe(container: containers.Container) -> "dict[str, Any]":
    """The OCI state with what runc adds to it: rootfs, created, owner.

    Args:
        container: any container.
    """
    status = container.status()
    described: dict[str, Any] = {
        "ociVersion": containers.OCI_VERSION,
        "id": container.id,
        "pid": 0 if status == containers.STOPPED else container.pid,
        "status": status,
        "bundle": container.state.get("bundle", ""),
        "rootfs": container.state.get("rootfs", ""),
        "created": container.state.get("created", "0001-01-01T00:00:00Z"),
    }
    annotations = container.state.get("annotations")
    if annotations:
        described["annotations"] = annotations
    # runc knows the owner in `list` only, and says "" here.
    described["owner"] = ""
    return described
