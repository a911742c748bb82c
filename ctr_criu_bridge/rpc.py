"""The messages of CRIU's RPC in the wire format of protobuf, from one table.

Names, numbers and types are those of CRIU's own schema (rpc.proto, as of CRIU 4.1); what this program never says is
left out. A message is a dict of its fields. `google.protobuf` would do the same: its import alone takes 20 to 30 ms, a
fifth of a checkpoint, and what is needed of the format (protobuf's documentation, "Encoding") is below.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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

# How a field is laid out; the lowest three bits of its key.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}
NUMBERS = ("bool", "int32", "uint32", "uint64", *ENUMS)
MASK = 2**64 - 1
# Ten groups of seven bits hold 64.
VARINT_MAX = 10

REQUEST_TYPES = ENUMS["req_type"]
REQUEST_NAMES = {number: name for name, number in REQUEST_TYPES.items()}


class DecodeError(ValueError):
    """Raised by decode: the bytes are not the message; whoever sent them is not to be trusted with more."""


class Field:
    """A field of a message.

    Args:
        text: as in MESSAGES.
    """

    __slots__ = ("kind", "many", "name", "needed", "number")

    def __init__(self, text: str) -> None:
        number, kind, self.name = text.split()
        self.number = int(number)
        self.many = kind.endswith("*")
        self.needed = kind.endswith("!")
        self.kind = kind.rstrip("*!")


_fields: dict[str, list[Field]] = {}


def fields(message: str) -> list[Field]:
    """The fields of a message, by its name in MESSAGES."""
    if message not in _fields:
        _fields[message] = [Field(text) for text in MESSAGES[message].split(",")]
    return _fields[message]


def encode(message: str, values: "dict[str, Any]") -> bytes:
    """A message as bytes.

    Args:
        message: its name in MESSAGES.
        values: fields that are there, by name.

    Raises:
        ValueError: a field is missing, or there is none of that name.
    """
    known = fields(message)
    unknown = values.keys() - {field.name for field in known}
    if unknown:
        raise ValueError(f"{message} has no field {', '.join(sorted(unknown))}")
    data = bytearray()
    for field in known:
        if field.name not in values:
            if field.needed:
                raise ValueError(f"{message} lacks {field.name}")
            continue
        value = values[field.name]
        for each in value if field.many else (value,):
            if field.kind in NUMBERS:
                data += _varint(field.number << 3 | VARINT) + _varint(each)
            else:
                body = each.encode(errors="surrogateescape") if field.kind == "string" else encode(field.kind, each)
                data += _varint(field.number << 3 | LENGTH) + _varint(len(body)) + body
    return bytes(data)


def _varint(value: int) -> bytes:
    value &= MASK
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def decode(message: str, data: bytes) -> "dict[str, Any]":
    """The message in bytes: the fields that are there. Unknown ones are left out.

    Raises:
        DecodeError: it is none.
    """
    known = {field.number: field for field in fields(message)}
    values: dict[str, Any] = {}
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        layout = key & 7
        number: int | None = None
        body = b""
        if layout == VARINT:
            number, position = _read_varint(data, position)
        else:
            size = FIXED.get(layout, 0)
            if layout == LENGTH:
                size, position = _read_varint(data, position)
            elif not size:
                raise DecodeError(f"{message} has a field of layout {layout}")
            body = data[position : position + size]
            position += size
            if len(body) != size:
                raise DecodeError(f"{message} is cut off")
        field = known.get(key >> 3)
        if field is None or layout != (VARINT if field.kind in NUMBERS else LENGTH):
            continue
        value: Any
        if number is not None:
            value = _number(field.kind, number)
        elif field.kind == "string":
            value = body.decode(errors="surrogateescape")
        else:
            value = decode(field.kind, body)
        if field.many:
            values.setdefault(field.name, []).append(value)
        else:
            values[field.name] = value
    for field in known.values():
        if field.needed and field.name not in values:
            raise DecodeError(f"{message} lacks {field.name}")
    return values


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + VARINT_MAX]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & MASK, position + index + 1
    raise DecodeError("a number is cut off")


def _number(kind: str, value: int) -> int:
    if kind == "bool":
        return bool(value)
    if kind == "int32":
        value &= 0xFFFFFFFF
        return value - 2**32 if value >= 2**31 else value
    return value


def request(kind: str, **values: "Any") -> "dict[str, Any]":
    """A request to CRIU.

    Args:
        kind: a name of REQUEST_TYPES.
        values: fields of the message `req`.
    """
    return {"type": REQUEST_TYPES[kind], **values}
