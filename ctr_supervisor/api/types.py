"""Types of what goes in and comes out; the configuration's own stand in ctr_common/spec/types.py."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from ctr_common.spec.types import Capabilities, Config, Resources, Rlimit, User
from ctr_common.spec.types import Process as ProcessSpec

__all__ = [
    "Capabilities",
    "Config",
    "ContainerState",
    "Network",
    "PressureLevel",
    "ProcessSpec",
    "Resources",
    "Rlimit",
    "Stats",
    "Status",
    "SupervisorStatus",
    "User",
]

# creating, created, running, paused, stopped. No Literal: a type checker would believe that what was compared once
# stays so, and a status changes between two looks at it.
Status = str

# Of memory: how short the container is of it.
PressureLevel = Literal["low", "medium", "critical"]

# As `ctrun events --stats` prints its data: cpu, memory, pids, blkio, hugetlb, intel_rdt, network_interfaces, ….
Stats = dict[str, Any]


class ContainerState(TypedDict):
    """The state of a container (runtime-spec, runtime.md, "State"), with what runc adds to it."""

    ociVersion: str
    id: str
    pid: int
    status: Status
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: NotRequired[dict[str, str]]
    exit_status: NotRequired[int]


class Network(TypedDict, total=False):
    """A network of libcontainer's kind: the loopback device, or a veth pair between container and bridge.

    `type` is "loopback" or "veth". Of a veth `name` is the name in the container, `bridge` that of the host's bridge;
    addresses are in CIDR notation.
    """

    type: str
    name: str
    bridge: str
    mac_address: str
    address: str
    gateway: str
    ipv6_address: str
    ipv6_gateway: str
    mtu: int
    tx_queue_len: int
    host_interface_name: str
    hairpin_mode: bool


class SupervisorStatus(TypedDict):
    """What a supervisor tells of itself; `uptime` in seconds."""

    pid: int
    version: str
    root: str
    uptime: float
    containers: int
    running: int
    clients: int
    subscribers: int
    jobs: int
    upgrades: int
