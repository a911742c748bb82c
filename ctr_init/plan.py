"""What the engine hands over to the setup worker."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Config
    from ctr_init.requests import MountRequest


class SetupPlan:
    """Everything that the worker has to know about one container.

    Args:
        config: validated config.json.
        bundle: directory of the bundle; relative bind sources start there.
        rootfs: absolute path of the root filesystem on the host.
        container_id: for error texts.
        state: OCI state for createContainer hooks; None where no hook may run.
        pidfd: of the process whose namespaces to join.
        pid: its pid, as the engine sees it.
        join_flags: CLONE_NEW* of the namespaces to join, new ones and joined ones alike.
        new_user_ns: the container has a user namespace.
        cgroup_paths: controller to directory of the container's cgroup (v1), or {"": directory} (v2).
        cgroup_mode: "legacy", "hybrid" or "unified".
        own_cgroup_ns: the container has a cgroup namespace.
        no_pivot: move the root with move_mount and chroot, for a host whose root is a ramdisk.
        rootless: the engine is not root on the host.
        console: allocate a terminal.
        console_size: its (width, height) in characters.

    Attributes:
        requests: `.mounts` as parsed by `requests.of_plan`, None until a step asks for them.
    """

    __slots__ = (
        "bundle",
        "cgroup_mode",
        "cgroup_paths",
        "config",
        "console",
        "console_size",
        "container_id",
        "join_flags",
        "new_user_ns",
        "no_pivot",
        "own_cgroup_ns",
        "pid",
        "pidfd",
        "requests",
        "rootfs",
        "rootless",
        "state",
    )

    def __init__(
        self,
        config: "Config",
        bundle: str,
        rootfs: str,
        container_id: str,
        state: "dict[str, Any] | None",
        pidfd: int,
        pid: int,
        join_flags: int,
        new_user_ns: bool,
        cgroup_paths: "dict[str, str]",
        cgroup_mode: str,
        own_cgroup_ns: bool,
        no_pivot: bool = False,
        rootless: bool = False,
        console: bool = False,
        console_size: "tuple[int, int] | None" = None,
    ) -> None:
        self.config = config
        self.bundle = bundle
        self.rootfs = rootfs
        self.container_id = container_id
        self.state = state
        self.pidfd = pidfd
        self.pid = pid
        self.join_flags = join_flags
        self.new_user_ns = new_user_ns
        self.cgroup_paths = cgroup_paths
        self.cgroup_mode = cgroup_mode
        self.own_cgroup_ns = own_cgroup_ns
        self.no_pivot = no_pivot
        self.rootless = rootless
        self.console = console
        self.console_size = console_size
        self.requests: list[MountRequest] | None = None
