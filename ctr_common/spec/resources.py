"""What an update makes of the resources that a container has.

In an update 0 and "" stand for "as it is", as in runc, except where 0 has a meaning of its own (CPU idle, burst,
swappiness). Device rules are no part of it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Resources

# Values for which 0 is one.
ZERO_COUNTS = ("idle", "burst", "swappiness")
UNSET = 2**64 - 1  # -1 as an unsigned number, with which Podman says that it has no swappiness to set
# The kernel has given them up (Linux 5.4 and 5.16), and so has the field.
IGNORED = ("kernel", "kernelTCP")

# Lists whose entries stand for a device, an interface or a page size, by what tells these apart.
LISTS = {
    "weightDevice": ("major", "minor"),
    "throttleReadBpsDevice": ("major", "minor"),
    "throttleWriteBpsDevice": ("major", "minor"),
    "throttleReadIOPSDevice": ("major", "minor"),
    "throttleWriteIOPSDevice": ("major", "minor"),
    "hugepageLimits": ("pageSize",),
    "priorities": ("name",),
}
SECTIONS = ("memory", "cpu", "pids", "blockIO", "network")
MAPS = ("rdma", "unified")


def asks_for_kernel_memory(update: "Resources") -> bool:
    """Whether an update has limits that are ignored."""
    memory: Any = update.get("memory") or {}
    return any(memory.get(name) for name in IGNORED)


def given(update: "Resources") -> "Resources":
    """An update without what it leaves as it is, and without device rules."""
    found: Any = {}
    wanted: Any = update
    for name in SECTIONS:
        section = {
            key: value
            for key, value in (wanted.get(name) or {}).items()
            if key not in IGNORED and value != UNSET and (value or (key in ZERO_COUNTS and value is not None))
        }
        if section:
            found[name] = section
    for name in ("hugepageLimits", *MAPS):
        if wanted.get(name):
            found[name] = wanted[name]
    return found  # type: ignore[no-any-return] # as the input was


def to_set(old: "Resources", update: "Resources") -> "Resources":
    """What has to be set for an update: what it gives, and what this can't be set without.

    Args:
        old: what the container has.
        update: what is to change.
    """
    wanted: Any = given(update)
    cpu = wanted.get("cpu")
    old_cpu: Any = old.get("cpu") or {}
    # v2 has one file for both, and systemd one property; and a quota means nothing without its period.
    if cpu and bool(cpu.get("quota")) != bool(cpu.get("period")):
        other = "period" if cpu.get("quota") else "quota"
        if old_cpu.get(other):
            cpu[other] = old_cpu[other]
    memory, old_memory = wanted.get("memory"), old.get("memory") or {}
    # The limit on memory and swap together is a limit on swap alone on v2, so the one on memory has to be known.
    if memory and memory.get("swap", 0) > 0 and not memory.get("limit") and (old_memory.get("limit") or 0) > 0:
        memory["limit"] = old_memory["limit"]
    return wanted  # type: ignore[no-any-return] # as `given` made it


def merge(old: "Resources", update: "Resources") -> "Resources":
    """What a container has after an update; the arguments stay as they are.

    Args:
        old: what it had, device rules included.
        update: what has changed.
    """
    merged: Any = dict(old)
    wanted: Any = given(update)
    for name, value in wanted.items():
        merged[name] = _merge(name, merged.get(name), value)
    memory = wanted.get("memory") or {}
    if memory.get("limit") == -1 and not memory.get("swap") and merged["memory"].get("swap"):
        # The kernel was told so, too: a limit on both together would be one on memory.
        merged["memory"]["swap"] = -1
    return merged  # type: ignore[no-any-return] # as the input was


def _merge(name: str, old: "Any", new: "Any") -> "Any":
    if name in LISTS:
        keys = LISTS[name]
        found = {tuple(entry[key] for key in keys): entry for entry in old or ()}
        for entry in new:
            place = tuple(entry[key] for key in keys)
            found[place] = _merge("", found.get(place), entry)
        return list(found.values())
    if isinstance(new, dict):
        merged = dict(old or {})
        for key, value in new.items():
            merged[key] = _merge(key, merged.get(key), value)
        return merged
    return new
