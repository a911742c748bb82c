"""What the kernel and this CRIU can do together (FEATURE_CHECK), asked before it is relied on."""

from collections.abc import Sequence

from ctr_common.errors import CriuError
from ctr_criu_bridge import rpc, session, swrk, version

HINTS = {
    "mem_track": "the kernel needs soft-dirty page tracking (CONFIG_MEM_SOFT_DIRTY)",
    "lazy_pages": "the kernel needs userfaultfd, and must allow its use (vm.unprivileged_userfaultfd)",
    "pidfd_store": "the kernel needs pidfds (Linux 5.3)",
}
NAMES = tuple(HINTS)


def ask(criu: str, names: Sequence[str] = NAMES) -> dict[str, bool]:
    """Which features there are.

    Args:
        criu: path, or name on PATH.
        names: of NAMES.

    Raises:
        CriuError: CRIU does not tell.
    """
    # CRIU before 2.12 crashes on this request without options.
    options = rpc.Options(images_dir_fd=-1)
    request = rpc.request("FEATURE_CHECK", opts=options, features=rpc.Features(**dict.fromkeys(names, True)))
    with swrk.Swrk(criu) as running:
        found = session.ask(running, request).features
    return {name: bool(getattr(found, name)) for name in names}


def require(criu: str, found: int, name: str, what: str) -> None:
    """Refuses where a feature is missing.

    Args:
        found: CRIU's version; one that can't be asked is believed to have the feature.
        name: of NAMES.
        what: what it is needed for.

    Raises:
        CriuError: it is missing.
    """
    if found < version.FEATURE_CHECK:
        return
    if not ask(criu, [name])[name]:
        raise CriuError(f"criu has not the feature {name}, which {what} needs", hint=HINTS[name])
