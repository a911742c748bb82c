"""Types of a validated configuration, for mypy: imported under TYPE_CHECKING only, since `typing` is slow to import.

A validated configuration is the plain dict that the JSON holds. Nothing in it is mandatory for mypy: that a property
is there is what `load.py` and `validate.py` have made sure of, and the specification says for which ones.
"""

from typing import TypedDict


class IDMapping(TypedDict):
    """One line of a uid or gid map."""

    containerID: int
    hostID: int
    size: int


class Root(TypedDict, total=False):
    """The root filesystem."""

    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """One entry of `.mounts`."""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Hook(TypedDict, total=False):
    """One hook; `timeout` is in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """The hooks by the time at which they run."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class ConsoleSize(TypedDict):
    """Size of the terminal in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    """Ids of the process, inside the container's user namespace."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class Capabilities(TypedDict, total=False):
    """The five capability sets, as CAP_ names."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """One resource limit; `type` is a RLIMIT_ name."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    """Arguments of sched_setattr(2)."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# "class" is a keyword, which the class syntax cannot take.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class ExecCPUAffinity(TypedDict, total=False):
    """CPU lists for `exec`: until the process is in its cgroup, and after."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """`.process`, and what `exec --process` reads."""

    terminal: bool
    consoleSize: ConsoleSize
    user: User
    args: list[str]
    commandLine: str
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: int
    selinuxLabel: str
    scheduler: Scheduler
    ioPriority: IOPriority
    execCPUAffinity: ExecCPUAffinity


class DeviceRule(TypedDict, total=False):
    """One entry of `.linux.resources.devices`."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """Memory limits in bytes."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    """CPU limits; times in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict, total=False):
    """The number of processes."""

    limit: int


class WeightDevice(TypedDict, total=False):
    """I/O weight of one device."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict, total=False):
    """I/O limit of one device, in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """I/O weights and limits."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """Limit in bytes for one page size ("2MB")."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    """Priority of the traffic over one interface."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """The net_cls and net_prio controllers."""

    classID: int
    priorities: list[InterfacePriority]


class Rdma(TypedDict, total=False):
    """Limits of one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """`.linux.resources`: what goes into the cgroup."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, Rdma]
    unified: dict[str, str]


class SyscallArg(TypedDict, total=False):
    """Condition on one argument of a system call."""

    index: int
    value: int
    valueTwo: int
    op: str


class Syscall(TypedDict, total=False):
    """Rule of a seccomp profile."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SyscallArg]


class Seccomp(TypedDict, total=False):
    """A seccomp profile."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[Syscall]


class Namespace(TypedDict, total=False):
    """A namespace: to be made, or the one at `path` to be joined."""

    type: str
    path: str


class Device(TypedDict, total=False):
    """A device node to make."""

    path: str
    type: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class NetDevice(TypedDict, total=False):
    """A network device to move in, with its name there."""

    name: str


class IntelRdt(TypedDict, total=False):
    """The resctrl group."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """Arguments of set_mempolicy(2)."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """Execution domain."""

    domain: str
    flags: list[str]


class TimeOffset(TypedDict, total=False):
    """Offset of one clock."""

    secs: int
    nanosecs: int


class TimeOffsets(TypedDict, total=False):
    """Offsets of the clocks of a new time namespace."""

    boottime: TimeOffset
    monotonic: TimeOffset


class Linux(TypedDict, total=False):
    """`.linux`."""

    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    sysctl: dict[str, str]
    resources: Resources
    cgroupsPath: str
    namespaces: list[Namespace]
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    seccomp: Seccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    personality: Personality
    timeOffsets: TimeOffsets


class Config(TypedDict, total=False):
    """config.json."""

    ociVersion: str
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
