"""Capabilities as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

CAP_CHOWN = 1 << 0
CAP_NET_ADMIN = 1 << 12
CAP_NET_RAW = 1 << 13
CAP_SYS_ADMIN = 1 << 21
# up to CAP_AUDIT_READ: engines older than the later ones never ask for those
LONG_KNOWN = (1 << 38) - 1


def own_capabilities() -> int:
    """The effective set of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise AssertionError("/proc/self/status has no CapEff")


def all_capabilities() -> int:
    """Every capability that this kernel knows."""
    return (2 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())) - 1
