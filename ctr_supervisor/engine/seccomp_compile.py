"""From a seccomp profile to BPF: the rules as libseccomp takes them, and ENOSYS for what the profile could not know.

The meaning of a profile is runc's (libcontainer/seccomp), quirks included: profiles are written against it.
"""

import struct

from ctr_common.errors import ConfigError, NotSupported, strerror
from ctr_common.spec.seccomp_names import ACTIONS, ARCHITECTURES, OPERATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any

    from ctr_common.spec.types import Seccomp, Syscall

    Condition = tuple[int, int, int, int]
    Rule = tuple[int, str, list[Condition]]

EPERM = 1
EACCES = 13
EINVAL = 22
ENOSYS = 38

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of the kernel."""

MAX_ARGUMENTS = 6
MAX_DATA = 0xFFFF
"""The low half of an action: the errno of ERRNO, the message of TRACE."""

NOTIFY_API_LEVEL = 6

FLTATR_CTL_NNP = 3
FLTATR_CTL_OPTIMIZE = 8
OPTIMIZE_BINARY_TREE = 2
LINEAR_SEARCH_RULES = 8
"""Up to here a filter that tries one syscall after the other is faster than a binary tree."""

X32_BIT = 0x40000000
RET_ENOSYS = ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS

# Classic BPF: opcodes, and offsets in struct seccomp_data.
LOAD_WORD = 0x20
JUMP = 0x05
JUMP_IF_EQUAL = 0x15
JUMP_IF_GREATER = 0x25
JUMP_IF_BITS = 0x45
RETURN = 0x06
OFFSET_NUMBER = 0
OFFSET_ARCHITECTURE = 4


def load_library(json_path: str) -> "ModuleType":
    """The extension _seccomp.

    Raises:
        NotSupported: it was not built, or libseccomp.so.2 is missing.
    """
    try:
        from ctr_common.kernel import _seccomp
    except ImportError as error:
        raise NotSupported(
            f"seccomp profiles cannot be compiled: {error}", json_path=json_path, hint="install libseccomp2"
        ) from None
    return _seccomp


def compile_profile(seccomp: "Seccomp", json_path: str) -> "tuple[bytes, bool]":
    """The BPF of a profile, and whether it has SCMP_ACT_NOTIFY rules.

    Args:
        seccomp: `.linux.seccomp` of a configuration.
        json_path: where it stands, for errors.

    Raises:
        ConfigError: a name in the profile is unknown, or a rule is not possible.
        NotSupported: libseccomp or the kernel lacks what the profile asks for.
    """
    library = load_library(json_path)
    default = action_value(
        seccomp.get("defaultAction", ""), seccomp.get("defaultErrnoRet"), f"{json_path}.defaultAction"
    )
    if default == ACTIONS["SCMP_ACT_NOTIFY"]:
        raise ConfigError("SCMP_ACT_NOTIFY cannot be used as default action", json_path=f"{json_path}.defaultAction")
    architectures = [
        architecture_token(name, f"{json_path}.architectures[{i}]")
        for i, name in enumerate(seccomp.get("architectures") or ())
    ]
    rules: "list[Rule]" = []
    places: "list[str]" = []
    used = {default & ~MAX_DATA: f"{json_path}.defaultAction"}
    names: "list[str]" = []
    for i, call in enumerate(seccomp.get("syscalls") or ()):
        place = f"{json_path}.syscalls[{i}]"
        action = action_value(call.get("action", ""), call.get("errnoRet"), f"{place}.action")
        if call.get("names"):
            used.setdefault(action & ~MAX_DATA, f"{place}.action")
        for rule in call_rules(call, action, place):
            names.append(rule[1])
            # A rule that says what the default says anyway is an error to libseccomp.
            if action != default:
                rules.append(rule)
                places.append(place)
    require_actions(library, used)
    bpf = run_compiler(library, default, architectures, rules, places, json_path)
    bpf = enosys_stub(library, seccomp, architectures, names) + bpf
    if len(bpf) // 8 > MAX_INSTRUCTIONS:
        raise ConfigError(
            f"the filter has {len(bpf) // 8} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            json_path=f"{json_path}.syscalls",
        )
    return bpf, ACTIONS["SCMP_ACT_NOTIFY"] in used


def action_value(name: str, data: "int | None", json_path: str) -> int:
    """SCMP_ACT_* value of an action with its errnoRet, which is EPERM by default and counts for ERRNO and TRACE only.

    Raises:
        ConfigError: the action is unknown, or errnoRet too large.
    """
    if name not in ACTIONS:
        raise ConfigError(f"string {name} is not a valid action for seccomp", json_path=json_path)
    if name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[name]
    if data is None:
        data = EPERM
    if not 0 <= data <= MAX_DATA:
        raise ConfigError(f"errnoRet {data} is not between 0 and {MAX_DATA}", json_path=json_path)
    return ACTIONS[name] | data


def architecture_token(name: str, json_path: str) -> int:
    """SCMP_ARCH_* token of a name.

    Raises:
        ConfigError: it is unknown.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"string {name} is not a valid arch for seccomp", json_path=json_path)
    return ARCHITECTURES[name]


def call_rules(call: "Syscall", action: int, json_path: str) -> "list[Rule]":
    """The rules for libseccomp of one entry of `syscalls`: one for each name, or more.

    Conditions on different arguments must all hold. Where two are on the same argument, which libseccomp cannot
    express in one rule, each condition becomes a rule of its own, so that any of them is enough: profiles rely on it.

    Raises:
        ConfigError: a name or a condition is not possible.
    """
    conditions = [
        condition(argument, f"{json_path}.args[{i}]", call) for i, argument in enumerate(call.get("args") or ())
    ]
    indexes = {index for index, *_ in conditions}
    groups = [conditions] if len(indexes) == len(conditions) else [[one] for one in conditions]
    rules: "list[Rule]" = []
    for i, name in enumerate(call.get("names") or ()):
        if not name:
            raise ConfigError("empty string is not a valid syscall", json_path=f"{json_path}.names[{i}]")
        if action == ACTIONS["SCMP_ACT_NOTIFY"] and name == "write":
            # The process could not hand over the listener's fd any more: nobody would answer its notification.
            raise ConfigError(
                "SCMP_ACT_NOTIFY cannot be used for the write syscall", json_path=f"{json_path}.names[{i}]"
            )
        rules += [(action, name, group) for group in groups]
    return rules


def condition(argument: "Mapping[str, Any]", json_path: str, call: "Syscall") -> "Condition":
    """The condition of one entry of `args`; for MASKED_EQ `value` is the mask and `valueTwo` what must be left.

    Raises:
        ConfigError: the operator is unknown, or the index or a value out of range.
    """
    name = argument.get("op", "")
    if name not in OPERATORS:
        raise ConfigError(f"string {name} is not a valid operator for seccomp", json_path=f"{json_path}.op")
    index, value, second = argument.get("index", 0), argument.get("value", 0), argument.get("valueTwo", 0)
    if not 0 <= index < MAX_ARGUMENTS:
        names = call.get("names") or [""]
        raise ConfigError(
            f"error creating seccomp syscall condition for syscall {names[0]}: "
            f"syscalls only have up to {MAX_ARGUMENTS} arguments ({index} given)",
            json_path=f"{json_path}.index",
        )
    if not 0 <= value < 1 << 64 or not 0 <= second < 1 << 64:
        raise ConfigError("value and valueTwo must be between 0 and 2^64-1", json_path=json_path)
    return index, OPERATORS[name], value, second if name == "SCMP_CMP_MASKED_EQ" else 0


def require_actions(library: "ModuleType", used: "Mapping[int, str]") -> None:
    """Checks that kernel and libseccomp have the actions of a profile.

    Args:
        library: _seccomp.
        used: action without its data, to the place in the configuration that asks for it first.

    Raises:
        NotSupported: one is missing.
    """
    for action, json_path in used.items():
        if action == ACTIONS["SCMP_ACT_NOTIFY"] and library.api_level() < NOTIFY_API_LEVEL:
            raise NotSupported(
                f"seccomp notify unsupported: API level: got {library.api_level()}, want at least {NOTIFY_API_LEVEL}. "
                "Please try with libseccomp >= 2.5.0 and Linux >= 5.7",
                json_path=json_path,
            )
        if not library.action_available(action):
            raise NotSupported("this kernel lacks the action", json_path=json_path)


def run_compiler(
    library: "ModuleType",
    default: int,
    architectures: "list[int]",
    rules: "list[Rule]",
    places: "list[str]",
    json_path: str,
) -> bytes:
    """libseccomp's BPF for rules, with its failures as errors in the configuration.

    Args:
        library: _seccomp.
        default: action of the filter.
        architectures: tokens, besides the native one.
        rules: for _seccomp.compile_rules.
        places: for each rule, where it stands.
        json_path: where the profile stands.

    Raises:
        ConfigError, NotSupported: libseccomp refuses an architecture or a rule.
    """
    # no_new_privs is a setting of its own in the configuration; left alone, libseccomp would not mind here either.
    attributes = {FLTATR_CTL_NNP: 0}
    if len(rules) > LINEAR_SEARCH_RULES and library.version() >= (2, 5, 0):
        attributes[FLTATR_CTL_OPTIMIZE] = OPTIMIZE_BINARY_TREE
    try:
        bpf: bytes = library.compile_rules(default, architectures, attributes, rules)
    except OSError as error:
        number = error.errno or EINVAL
        index: int = getattr(error, "index", -1)
        function: str = getattr(error, "syscall", "")
        if function == "seccomp_arch_add":
            raise NotSupported(
                f"error adding architecture to seccomp filter: {strerror(number)}",
                json_path=f"{json_path}.architectures[{index}]",
            ) from None
        if function == "seccomp_rule_add_array":
            reason = "requested action matches default action of filter" if number in (EPERM, EACCES) else ""
            raise ConfigError(
                f"error adding seccomp filter rule for syscall {rules[index][1]}: {reason or strerror(number)}",
                json_path=places[index],
            ) from None
        raise NotSupported("error creating filter", syscall=function, errno=number, json_path=json_path) from None
    return bpf


def enosys_stub(library: "ModuleType", seccomp: "Seccomp", architectures: "list[int]", names: "list[str]") -> bytes:
    """Instructions to put before a filter: ENOSYS for syscalls newer than the newest that the profile names.

    A libc tries a new syscall and falls back to an older one on ENOSYS; a profile that is older than the syscall would
    answer EPERM instead, and break the program (glibc's clone3 and faccessat2 did). Nothing is put before a filter
    that lets unknown syscalls through, or answers ENOSYS anyway.

    Args:
        library: _seccomp.
        seccomp: the profile.
        architectures: its tokens; the native one counts as if it were among them.
        names: the syscalls of the profile, whatever is done with them.
    """
    action = seccomp.get("defaultAction", "")
    if action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE") or seccomp.get("defaultErrnoRet") == ENOSYS:
        return b""
    newest: "dict[int, int]" = {}
    for token in (library.native_architecture(), *architectures):
        if token not in newest:
            numbers = (library.resolve(name, token) for name in set(names))
            newest[token] = max((number for number in numbers if number is not None), default=0)
    return assemble_stub({token: number for token, number in newest.items() if number > 0})


def assemble_stub(newest: "Mapping[int, int]") -> bytes:
    """The stub for the newest syscall number by SCMP_ARCH_* token; x32 numbers have bit 30 set.

    Every architecture gets a section that ends in a jump to the filter proper.
    """
    x86_64, x32 = ARCHITECTURES["SCMP_ARCH_X86_64"], ARCHITECTURES["SCMP_ARCH_X32"]
    sections = []
    for token, number in newest.items():
        if token == x32 and x86_64 in newest:
            continue
        tests = [(LOAD_WORD, 0, 0, OFFSET_NUMBER)]
        if token == x86_64 and x32 in newest:
            tests.append((JUMP_IF_BITS, 1, 0, X32_BIT))
            tests.append((JUMP_IF_GREATER, 1, 2, number))
            tests.append((JUMP_IF_GREATER, 0, 1, newest[x32]))
        elif token == x86_64:
            # Without x32 in the profile its syscalls are the filter's to refuse, as of a foreign architecture.
            tests.append((JUMP_IF_BITS, 2, 0, X32_BIT))
            tests.append((JUMP_IF_GREATER, 0, 1, number))
        elif token == x32:
            tests.append((JUMP_IF_BITS, 0, 2, X32_BIT))
            tests.append((JUMP_IF_GREATER, 0, 1, number))
        elif token in (ARCHITECTURES["SCMP_ARCH_S390"], ARCHITECTURES["SCMP_ARCH_S390X"]):
            # A syscall number too large for the instruction arrives as 0 there.
            tests.append((JUMP_IF_EQUAL, 1, 0, 0))
            tests.append((JUMP_IF_GREATER, 0, 1, number))
        else:
            tests.append((JUMP_IF_GREATER, 0, 1, number))
        tests.append((RETURN, 0, 0, RET_ENOSYS))
        audit = x86_64 if token == x32 else token
        sections.append([(JUMP_IF_EQUAL, 0, len(tests) + 1, audit), *tests])
    if not sections:
        return b""
    program = [(LOAD_WORD, 0, 0, OFFSET_ARCHITECTURE)]
    left = sum(len(section) + 1 for section in sections)
    for section in sections:
        left -= len(section) + 1
        program += [*section, (JUMP, 0, 0, left)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
