"""Whether restored processes are under the profile that `restore --lsm-profile` asks for.

CRIU puts the profile in place of the one that a process had when it was dumped (criu/cr-restore.c,
rst_prep_creds_args); one that had none stays unconfined, and CRIU tells nobody.
"""

import os

from ctr_common.errors import CriuError

APPARMOR = "apparmor"
# AppArmor's own, since Linux 5.8; the one that all security modules share, and the first of them has.
LABELS = {APPARMOR: ("apparmor/current", "current")}
SHARED = ("current",)


def check(profile: str, init: int) -> None:
    """Looks at a process and, where it has a pid namespace of its own, at all others in it.

    Args:
        profile: TYPE:NAME.
        init: pid of the first process.

    Raises:
        CriuError: one is not under it.
    """
    kind, _, name = profile.partition(":")
    for pid in beside(init):
        found = label(pid, kind)
        # A dead process that nobody has waited for yet runs nothing, and CRIU gives it no profile.
        if found not in (None, name) and not is_dead(pid):
            raise CriuError(
                f"restored process {pid} is under the {kind} profile {found or 'unconfined'}, not {name}",
                hint="criu replaces the profile that a process had when it was checkpointed, and gives none to one"
                " that was unconfined: checkpoint it under a profile",
            )


def beside(init: int) -> "list[int]":
    """Pids of the processes in the pid namespace of a process, if that is not ours; else of the process alone."""
    try:
        namespace = os.stat(f"/proc/{init}/ns/pid").st_ino
        if namespace == os.stat("/proc/self/ns/pid").st_ino:
            return [init]
    except OSError:
        return [init]
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                found.append(int(entry))
        except OSError:
            continue
    return found


def label(pid: int, kind: str) -> "str | None":
    """What the security module calls the process's profile; None where there is no such process."""
    for name in LABELS.get(kind, SHARED):
        try:
            with open(f"/proc/{pid}/attr/{name}", "rb", 0) as file:
                text = file.read().rstrip(b"\0\n").decode(errors="surrogateescape")
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}"):
                continue
            return None
        except ProcessLookupError:
            return None
        except OSError:
            return ""
        # "NAME (enforce)": the mode is no part of the name
        return text.rpartition(" (")[0] or text if kind == APPARMOR else text
    return ""


def is_dead(pid: int) -> bool:
    """Whether a process has ended (proc(5), /proc/pid/stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return True
