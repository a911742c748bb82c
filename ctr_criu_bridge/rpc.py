"""The messages of CRIU's RPC: protobuf classes that are made from one table when this is imported.

So neither the build nor a host needs protoc, and a table is easier to read than what it generates. Names, numbers and
types are those of CRIU's own schema (rpc.proto, as of CRIU 4.1); what this program never says is left out. Everywhere
else a message is a dict of its fields.

`google.protobuf` takes 20 to 30 ms to import: only the bridge does, while the engine looks at the container.
"""

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, EncodeError

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["ENUMS", "MESSAGES", "REQUEST_NAMES", "REQUEST_TYPES", "DecodeError", "decode", "encode", "request"]

PACKAGE = "ctr.criu"

# name: number; enumerations of the request types and of the options
ENUMS: dict[str, dict[str, int]] = {
    "req_type": {
        "EMPTY": 0,
        "DUMP": 1,
        "RESTORE": 2,
        "CHECK": 3,
        "PRE_DUMP": 4,
        "PAGE_SERVER": 5,
        "NOTIFY": 6,
        "CPUINFO_DUMP": 7,
        "CPUINFO_CHECK": 8,
        "FEATURE_CHECK": 9,
        "VERSION": 10,
        "WAIT_PID": 11,
        "PAGE_SERVER_CHLD": 12,
        "SINGLE_PRE_DUMP": 13,
    },
    "cg_mode": {"IGNORE": 0, "CG_NONE": 1, "PROPS": 2, "SOFT": 3, "FULL": 4, "STRICT": 5, "DEFAULT": 6},
    "network_lock_method": {"IPTABLES": 1, "NFTABLES": 2, "SKIP": 3},
}

# message: fields as "number type name"; `*` behind a type makes a list of it, `!` a value that must be there
MESSAGES: dict[str, str] = {
    "page_server_info": "1 string address, 2 int32 port, 3 int32 pid, 4 int32 fd",
    "veth_pair": "1 string! if_in, 2 string! if_out",
    "ext_mount_map": "1 string! key, 2 string! val",
    "join_namespace": "1 string! ns, 2 string! ns_file, 3 string extra_opt",
    "inherit_fd": "1 string! key, 2 int32! fd",
    "cgroup_root": "1 string ctrl, 2 string! path",
    "opts": """
        1 int32! images_dir_fd, 2 int32 pid, 3 bool leave_running, 4 bool ext_unix_sk, 5 bool tcp_established,
        6 bool evasive_devices, 7 bool shell_job, 8 bool file_locks, 9 int32 log_level, 10 string log_file,
        11 page_server_info ps, 12 bool notify_scripts, 13 string root, 14 string parent_img, 15 bool track_mem,
        16 bool auto_dedup, 17 int32 work_dir_fd, 18 bool link_remap, 19 veth_pair* veths, 21 bool force_irmap,
        23 ext_mount_map* ext_mnt, 24 bool manage_cgroups, 25 cgroup_root* cg_root, 26 bool rst_sibling,
        27 inherit_fd* inherit_fd, 34 cg_mode manage_cgroups_mode, 35 uint32 ghost_limit, 37 string* external,
        38 uint32 empty_ns, 39 join_namespace* join_ns, 43 string* cgroup_dump_controller,
        44 string freeze_cgroup, 45 uint32 timeout, 46 bool tcp_skip_in_flight, 48 bool lazy_pages,
        49 int32 status_fd, 50 bool orphan_pts_master, 51 string config_file, 52 bool tcp_close,
        53 string lsm_profile, 63 string lsm_mount_context, 64 network_lock_method network_lock,
        66 bool skip_file_rwx_check
    """,
    "dump_resp": "1 bool restored",
    "restore_resp": "1 int32! pid",
    "notify": "1 string script, 2 int32 pid",
    "features": "1 bool mem_track, 2 bool lazy_pages, 3 bool pidfd_store",
    "version": """
        1 int32! major_number, 2 int32! minor_number, 3 string gitid, 4 int32 sublevel, 5 int32 extra, 6 string name
    """,
    "req": """
        1 req_type! type, 2 opts opts, 3 bool notify_success, 4 bool keep_open, 5 features features, 6 uint32 pid
    """,
    "resp": """
        1 req_type! type, 2 bool! success, 3 dump_resp dump, 4 restore_resp restore, 5 notify notify,
        6 page_server_info ps, 7 int32 cr_errno, 8 features features, 9 string cr_errmsg, 10 version version,
        11 int32 status
    """,
    # The file stats-dump or stats-restore in the work directory (CRIU's stats.proto).
    "dump_stats": """
        1 uint32! freezing_time, 2 uint32! frozen_time, 3 uint32! memdump_time, 4 uint32! memwrite_time,
        5 uint64! pages_scanned, 6 uint64! pages_skipped_parent, 7 uint64! pages_written, 8 uint32 irmap_resolve,
        9 uint64 pages_lazy, 10 uint64 page_pipes, 11 uint64 page_pipe_bufs, 12 uint64 shpages_scanned,
        13 uint64 shpages_skipped_parent, 14 uint64 shpages_written
    """,
    "restore_stats": """
        1 uint64! pages_compared, 2 uint64! pages_skipped_cow, 3 uint32! forking_time, 4 uint32! restore_time,
        5 uint64 pages_restored
    """,
    "stats_entry": "1 dump_stats dump, 2 restore_stats restore",
}

REQUEST_TYPES = ENUMS["req_type"]
REQUEST_NAMES = {number: name for name, number in REQUEST_TYPES.items()}

_Field = descriptor_pb2.FieldDescriptorProto
# Enumerations are numbers and strings are bytes, which are laid out the same: a path need not be UTF-8, nor does an
# older CRIU have to know every value.
SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "string": _Field.TYPE_BYTES,
    **dict.fromkeys(ENUMS, _Field.TYPE_INT32),
}
LABELS = {"*": _Field.LABEL_REPEATED, "!": _Field.LABEL_REQUIRED}


def _schema() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="ctr_criu_bridge/rpc.proto", package=PACKAGE, syntax="proto2")
    for name, text in MESSAGES.items():
        message = file.message_type.add(name=name)
        for words in text.split(","):
            number, kind, field_name = words.split()
            field = message.field.add(
                name=field_name, number=int(number), label=LABELS.get(kind[-1], _Field.LABEL_OPTIONAL)
            )
            kind = kind.rstrip("*!")
            if kind in SCALARS:
                field.type = SCALARS[kind]
            else:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".{PACKAGE}.{kind}"
    return file


def _classes() -> "dict[str, type[Message]]":
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_schema().SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        make = message_factory.GetMessageClass
    else:
        # Before protobuf 4.22, as in Debian 12 and 13.
        factory: Any = message_factory.MessageFactory(pool)
        make = factory.GetPrototype
    return {name: make(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


_CLASSES = _classes()


def encode(message: str, values: dict[str, Any]) -> bytes:
    """A message as bytes.

    Args:
        message: its name in MESSAGES.
        values: fields that are there, by name.

    Raises:
        ValueError: a field is missing, or there is none of that name.
    """
    try:
        return _CLASSES[message](**_as_bytes(values)).SerializeToString()
    except EncodeError as error:
        raise ValueError(str(error)) from None


def _as_bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    if isinstance(value, dict):
        return {name: _as_bytes(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_bytes(each) for each in value]
    return value


def decode(message: str, data: bytes) -> dict[str, Any]:
    """The message in bytes: the fields that are there. Unknown ones are left out.

    Raises:
        DecodeError: it is none.
    """
    found = _CLASSES[message]()
    found.ParseFromString(data)
    if not found.IsInitialized():
        raise DecodeError(f"{message} lacks a field that it must have")
    return _as_dict(found)


def _as_dict(message: "Message") -> dict[str, Any]:
    return {field.name: _as_value(value) for field, value in message.ListFields()}


def _as_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, int):
        return value
    return _as_dict(value) if hasattr(value, "ListFields") else [_as_value(each) for each in value]


def request(kind: str, **values: "Any") -> "dict[str, Any]":
    """A request to CRIU.

    Args:
        kind: a name of REQUEST_TYPES.
        values: fields of the message `req`.
    """
    return {"type": REQUEST_TYPES[kind], **values}
