"""The shape of config.json (runtime-spec 1.3, common and Linux parts), as data for `load.py`.

A node is the name of a scalar (a key of SCALARS), or one of
    ("array", node)                          a list of nodes
    ("map", node)                            an object with free keys
    ("object", {name: node}, (names))        an object; the names at the end are required
Properties that are not here are accepted, as the specification asks; so are the sections of other platforms.

Only types and ranges stand here. Which values make sense, and together with which others, is in `validate.py`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    # str | tuple[str, Node] | tuple[str, dict[str, Node], tuple[str, ...]]; dict is invariant, so mypy wants every
    # inner literal annotated before it believes that.
    Node: TypeAlias = Any

# name: (Python type, smallest value, largest value); "int" is Go's, which the published schema leaves unbounded.
SCALARS: "dict[str, tuple[type, int, int]]" = {
    "string": (str, 0, 0),
    "boolean": (bool, 0, 0),
    "int": (int, -(2**63), 2**63 - 1),
    "int32": (int, -(2**31), 2**31 - 1),
    "int64": (int, -(2**63), 2**63 - 1),
    "uint16": (int, 0, 2**16 - 1),
    "uint32": (int, 0, 2**32 - 1),
    "uint64": (int, 0, 2**64 - 1),
}

STRINGS: "Node" = ("array", "string")
STRING_MAP: "Node" = ("map", "string")

ID_MAPPINGS: "Node" = (
    "array",
    (
        "object",
        {"containerID": "uint32", "hostID": "uint32", "size": "uint32"},
        ("containerID", "hostID", "size"),
    ),
)

MOUNT: "Node" = (
    "object",
    {
        "destination": "string",
        "type": "string",
        "source": "string",
        "options": STRINGS,
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
    },
    ("destination",),
)

HOOKS: "Node" = (
    "array",
    ("object", {"path": "string", "args": STRINGS, "env": STRINGS, "timeout": "int"}, ("path",)),
)

PROCESS: "Node" = (
    "object",
    {
        "terminal": "boolean",
        "consoleSize": ("object", {"height": "uint64", "width": "uint64"}, ("height", "width")),
        "user": (
            "object",
            {
                "uid": "uint32",
                "gid": "uint32",
                "umask": "uint32",
                "additionalGids": ("array", "uint32"),
                "username": "string",
            },
            (),
        ),
        "args": STRINGS,
        "commandLine": "string",
        "env": STRINGS,
        "cwd": "string",
        "capabilities": (
            "object",
            {
                "bounding": STRINGS,
                "effective": STRINGS,
                "inheritable": STRINGS,
                "permitted": STRINGS,
                "ambient": STRINGS,
            },
            (),
        ),
        "rlimits": (
            "array",
            (
                "object",
                {"type": "string", "soft": "uint64", "hard": "uint64"},
                ("type", "soft", "hard"),
            ),
        ),
        "noNewPrivileges": "boolean",
        "apparmorProfile": "string",
        "oomScoreAdj": "int",
        "selinuxLabel": "string",
        "scheduler": (
            "object",
            {
                "policy": "string",
                "nice": "int32",
                "priority": "int32",
                "flags": STRINGS,
                "runtime": "uint64",
                "deadline": "uint64",
                "period": "uint64",
            },
            ("policy",),
        ),
        "ioPriority": ("object", {"class": "string", "priority": "int32"}, ("class",)),
        "execCPUAffinity": ("object", {"initial": "string", "final": "string"}, ()),
    },
    # cwd is required too; validate.py says so in runc's words.
    (),
)

_WEIGHT_DEVICES: "Node" = (
    "array",
    (
        "object",
        {"major": "int64", "minor": "int64", "weight": "uint16", "leafWeight": "uint16"},
        ("major", "minor"),
    ),
)

_THROTTLE_DEVICES: "Node" = (
    "array",
    ("object", {"major": "int64", "minor": "int64", "rate": "uint64"}, ("major", "minor")),
)

RESOURCES: "Node" = (
    "object",
    {
        "devices": (
            "array",
            (
                "object",
                {"allow": "boolean", "type": "string", "major": "int64", "minor": "int64", "access": "string"},
                ("allow",),
            ),
        ),
        "memory": (
            "object",
            {
                "limit": "int64",
                "reservation": "int64",
                "swap": "int64",
                "kernel": "int64",
                "kernelTCP": "int64",
                "swappiness": "uint64",
                "disableOOMKiller": "boolean",
                "useHierarchy": "boolean",
                "checkBeforeUpdate": "boolean",
            },
            (),
        ),
        "cpu": (
            "object",
            {
                "shares": "uint64",
                "quota": "int64",
                "burst": "uint64",
                "period": "uint64",
                "realtimeRuntime": "int64",
                "realtimePeriod": "uint64",
                "cpus": "string",
                "mems": "string",
                "idle": "int64",
            },
            (),
        ),
        # The published schema requires pids.limit, the specification's own Go type leaves it out when it is unset.
        "pids": ("object", {"limit": "int64"}, ()),
        "blockIO": (
            "object",
            {
                "weight": "uint16",
                "leafWeight": "uint16",
                "weightDevice": _WEIGHT_DEVICES,
                "throttleReadBpsDevice": _THROTTLE_DEVICES,
                "throttleWriteBpsDevice": _THROTTLE_DEVICES,
                "throttleReadIOPSDevice": _THROTTLE_DEVICES,
                "throttleWriteIOPSDevice": _THROTTLE_DEVICES,
            },
            (),
        ),
        "hugepageLimits": (
            "array",
            ("object", {"pageSize": "string", "limit": "uint64"}, ("pageSize", "limit")),
        ),
        "network": (
            "object",
            {
                "classID": "uint32",
                "priorities": (
                    "array",
                    ("object", {"name": "string", "priority": "uint32"}, ("name", "priority")),
                ),
            },
            (),
        ),
        "rdma": ("map", ("object", {"hcaHandles": "uint32", "hcaObjects": "uint32"}, ())),
        "unified": STRING_MAP,
    },
    (),
)

SECCOMP: "Node" = (
    "object",
    {
        "defaultAction": "string",
        "defaultErrnoRet": "uint32",
        "architectures": STRINGS,
        "flags": STRINGS,
        "listenerPath": "string",
        "listenerMetadata": "string",
        "syscalls": (
            "array",
            (
                "object",
                {
                    "names": STRINGS,
                    "action": "string",
                    "errnoRet": "uint32",
                    "args": (
                        "array",
                        (
                            "object",
                            {"index": "uint32", "value": "uint64", "valueTwo": "uint64", "op": "string"},
                            ("index", "value", "op"),
                        ),
                    ),
                },
                ("names", "action"),
            ),
        ),
    },
    ("defaultAction",),
)

_TIME_OFFSET: "Node" = ("object", {"secs": "int64", "nanosecs": "uint32"}, ())

LINUX: "Node" = (
    "object",
    {
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "sysctl": STRING_MAP,
        "resources": RESOURCES,
        "cgroupsPath": "string",
        "namespaces": ("array", ("object", {"type": "string", "path": "string"}, ("type",))),
        "devices": (
            "array",
            (
                "object",
                {
                    "path": "string",
                    "type": "string",
                    "major": "int64",
                    "minor": "int64",
                    # Published as at most 0777; engines copy the whole st_mode of a host device into it.
                    "fileMode": "uint32",
                    "uid": "uint32",
                    "gid": "uint32",
                },
                ("path", "type"),
            ),
        ),
        "netDevices": ("map", ("object", {"name": "string"}, ())),
        "seccomp": SECCOMP,
        "rootfsPropagation": "string",
        "maskedPaths": STRINGS,
        "readonlyPaths": STRINGS,
        "mountLabel": "string",
        "intelRdt": (
            "object",
            {
                "closID": "string",
                "schemata": STRINGS,
                "l3CacheSchema": "string",
                "memBwSchema": "string",
                "enableMonitoring": "boolean",
            },
            (),
        ),
        "memoryPolicy": ("object", {"mode": "string", "nodes": "string", "flags": STRINGS}, ()),
        "personality": ("object", {"domain": "string", "flags": STRINGS}, ()),
        "timeOffsets": ("object", {"boottime": _TIME_OFFSET, "monotonic": _TIME_OFFSET}, ()),
    },
    (),
)

CONFIG: "Node" = (
    "object",
    {
        "ociVersion": "string",
        "process": PROCESS,
        "root": ("object", {"path": "string", "readonly": "boolean"}, ("path",)),
        "hostname": "string",
        "domainname": "string",
        "mounts": ("array", MOUNT),
        "hooks": (
            "object",
            {
                "prestart": HOOKS,
                "createRuntime": HOOKS,
                "createContainer": HOOKS,
                "startContainer": HOOKS,
                "poststart": HOOKS,
                "poststop": HOOKS,
            },
            (),
        ),
        "annotations": STRING_MAP,
        "linux": LINUX,
    },
    ("ociVersion",),
)
