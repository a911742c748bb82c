"""libseccomp's compiler (c/seccomp); import it only where a filter has to be compiled.

Every function raises OSError with the attributes `syscall` (the function of libseccomp that failed) and `index` (the
place of the architecture or rule in its list, or -1).
"""

from collections.abc import Sequence

_Condition = tuple[int, int, int, int]
_Rule = tuple[int, str, Sequence[_Condition]]

def compile_rules(
    default_action: int, architectures: Sequence[int], attributes: dict[int, int], rules: Sequence[_Rule]
) -> bytes:
    """A filter as struct sock_filter[]; see seccomp_init(3) and the pages of the other functions.

    Args:
        default_action: SCMP_ACT_* value.
        architectures: SCMP_ARCH_* tokens to add to the native one.
        attributes: SCMP_FLTATR_* to value.
        rules: (action, name of the syscall, conditions), a condition being (index of the argument, SCMP_CMP_*, value,
            second value). Syscalls that this libseccomp does not know are left out.
    """

def resolve(name: str, architecture: int) -> int | None:
    """The number of a syscall on an architecture, None where it has none; x32 numbers include bit 30."""

def native_architecture() -> int:
    """The SCMP_ARCH_* token of this machine."""

def version() -> tuple[int, int, int]:
    """Version of the libseccomp that is loaded."""

def api_level() -> int:
    """What libseccomp and this kernel can do together; see seccomp_api_get(3)."""

def action_available(action: int) -> bool:
    """Whether this kernel has an action (SECCOMP_GET_ACTION_AVAIL)."""

def flags_available(flags: int) -> bool:
    """Whether this kernel has SECCOMP_FILTER_FLAG_* in this combination."""
