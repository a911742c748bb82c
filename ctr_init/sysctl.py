"""Kernel parameters of the container's namespaces. Which ones are namespaced is checked by the validator."""

from ctr_common.errors import SetupError
from ctr_common.spec import sysctl
from ctr_init import proc
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the sysctls."""
    wanted = (plan.config.get("linux") or {}).get("sysctl") or {}
    return [Piece(f"{key} = {value}", f".linux.sysctl.{key}", (key, value)) for key, value in wanted.items()]


def file_of(key: str) -> str:
    """Path of a parameter relative to /proc.

    Raises:
        ValueError: it would lead out of /proc/sys.
    """
    return "sys/" + sysctl.path(key)


def write(setup: "Setup", argument: "tuple[str, str]") -> None:
    """Sets one parameter.

    Raises:
        SetupError: it does not exist, or the kernel refuses the value.
    """
    key, value = argument
    try:
        path = file_of(key)
    except ValueError as error:
        raise SetupError(str(error)) from None
    try:
        proc.write(setup, path, value.encode())
    except OSError as error:
        raise SetupError(
            f"cannot write {value!r} to sysctl {key}", path=f"/proc/{path}", errno=error.errno or 0
        ) from None
