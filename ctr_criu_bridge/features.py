"""What the kernel and this CRIU can do together (FEATURE_CHECK), asked before it is relied on."""

from ctr_common.errors import CriuError
from ctr_criu_bridge import rpc, session, swrk, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HINTS = {
    "mem_track": "the kernel needs soft-dirty page tracking (CONFIG_MEM_SOFT_DIRTY)",
    "lazy_pages": "the kernel needs userfaultfd, and must allow its use (vm.unprivileged_userfaultfd)",
    "pidfd_store": "the kernel needs pidfds (Linux 5.3)",
}
NAMES = tuple(HINTS)


def ask(criu: str, names: "Sequence[str]" = NAMES) -> dict[str, bool]:
    """Which features there are.

    Args:
        criu: path, or name on PATH.
        names: of NAMES.

    Raises:
        CriuError: CRIU does not tell.
    """
    with swrk.Swrk(criu) as running:
        return ask_running(running, names)


def ask_running(running: swrk.Swrk, names: "Sequence[str]", *, go_on: bool = False) -> dict[str, bool]:
    """The same of a CRIU that waits for a request.

    Args:
        go_on: it is to wait for another one.
    """
    # CRIU before 2.12 crashes on this request without options.
    wanted = dict.fromkeys(names, True)
    request = rpc.request("FEATURE_CHECK", opts={"images_dir_fd": -1}, features=wanted, keep_open=go_on)
    found = session.ask(running, request).get("features", {})
    return {name: bool(found.get(name)) for name in names}


def require(running: swrk.Swrk, found: int, name: str, what: str) -> None:
    """Refuses where a feature is missing.

    Args:
        running: a CRIU that waits for a request, and does so afterwards.
        found: its version; one that can't be asked is believed to have the feature.
        name: of NAMES.
        what: what it is needed for.

    Raises:
        CriuError: it is missing.
    """
    if found < version.FEATURE_CHECK:
        return
    if not ask_running(running, [name], go_on=True)[name]:
        raise CriuError(f"criu has not the feature {name}, which {what} needs", hint=HINTS[name])
