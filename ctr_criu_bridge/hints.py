"""Known causes of failures, by what CRIU's log says, and what the user can do about each."""

import re
from collections.abc import Iterable


class Cause:
    """A known cause.

    Args:
        name: for scripts.
        pattern: regular expression that CRIU's message matches.
        hint: what to do.
    """

    __slots__ = ("hint", "name", "pattern")

    def __init__(self, name: str, pattern: str, hint: str) -> None:
        self.name = name
        self.pattern = re.compile(pattern)
        self.hint = hint


# The first that matches any line wins: what is asked for by name stands before what may follow from it.
CAUSES = (
    Cause(
        "external-unix-socket",
        r"--ext-unix-sk|External socket is used|Can't dump half of stream unix connection|unix: Dangling connection",
        "a process is connected to a unix socket outside of the container: close it, or use --ext-unix-sk",
    ),
    Cause(
        "tcp-in-flight",
        r"In-flight connection",
        "a TCP connection has not been accepted yet: try again, or use --tcp-skip-in-flight to drop it",
    ),
    Cause(
        "tcp",
        r"Connected TCP socket|--tcp-established",
        "a process has an established TCP connection: use --tcp-established to keep it, or --tcp-close to give it up",
    ),
    Cause(
        "file-outside",
        r"Can't lookup mount=-?\w+ for fd=-?\d+|Unable to find mount .* for fd|unable to (?:find|get) .*external file",
        "a process has a file open that is outside of the container, mostly its stdin, stdout or stderr:"
        " start the container with pipes or /dev/null for them",
    ),
    Cause(
        "ghost-limit",
        r"Can't dump ghost file .* of \d+ size|increase limit|ghost-limit",
        "a process uses a deleted file that is larger than --ghost-limit: raise it",
    ),
    Cause(
        "deleted-file",
        r"link-remap|Can't create link remap",
        "a process uses a file that was deleted and has another name left: use --link-remap",
    ),
    Cause(
        "file-locks",
        r"file locks are hold|--file-locks",
        "a process holds a file lock: use --file-locks",
    ),
    Cause(
        "terminal",
        r"--shell-job|dangling tty|tty: Found .*without control|Found slave peer .*without correspond"
        r"|Don't have tty to inherit",
        "a process uses a terminal outside of the container: use --shell-job",
    ),
    Cause(
        "memory-tracking",
        r"Tracking memory is not available|--track-mem|Dirty tracking is OFF|[Mm]em(?:ory)? ?tracking|soft.?dirty",
        "the kernel has no soft-dirty page tracking, which --pre-dump and --parent-path need: leave them out",
    ),
    Cause(
        "userfaultfd",
        r"uffd|userfaultfd",
        "the kernel does not allow userfaultfd, which --lazy-pages needs: leave it out",
    ),
    Cause(
        "network-lock",
        r"iptables|ip6tables|nftables|libnftables|network.lock|Locking network failed",
        "CRIU could not lock the network: use --network-lock with the one that this host has, nftables or iptables,"
        " or skip",
    ),
    Cause(
        "namespace-missing",
        r"extRoot(?:Net|Pid)NS|Unable to open .*netns|external (?:net|pid) ?n(?:ame)?s",
        "the namespace that the configuration names by its path must be there before the restore",
    ),
    Cause(
        "pid-taken",
        r"Can't fork for \d+: File exists|Pid \d+ do not match expected",
        "a process id of the checkpoint is in use here: give the container a pid namespace of its own",
    ),
    Cause(
        "cgroups",
        r"cg: Can't move \d+ into",
        "the cgroups of the checkpoint are not those of here: restore with the --manage-cgroups-mode of the checkpoint",
    ),
    Cause(
        "mount-sharing",
        r"unreachable sharing|--enable-external-(?:sharing|masters)",
        "a mount of the container shares its propagation with one outside: make it private in config.json",
    ),
    Cause(
        "mount-external",
        r"[Nn]o mapping for|external mount|is not a proper mountpoint|Unable to find .*mountpoint",
        "the bundle must have the mounts that the container had when it was checkpointed",
    ),
    Cause(
        "mount-unsupported",
        r"FS mnt .* unsupported|unsupported id|[Uu]nsupported file ?system",
        "the container has a mount of a type that CRIU does not know: unmount it, or bind it from outside",
    ),
    Cause(
        "file-changed",
        r"File .* has bad (?:size|mode|build-ID)|file validation",
        "the root file system has changed since the checkpoint: restore with the one that it was made of",
    ),
    Cause(
        "file-missing",
        r"Can't open file .* on restore|Can't open .*: No such file or directory",
        "a file of the container is not there: the root file system and the mounts must be those of the checkpoint",
    ),
    Cause(
        "images-unreadable",
        r"Unable to open .*\.img: Permission denied",
        "the container's root user, an ordinary one on the host, must be able to pass through the image path",
    ),
    Cause(
        "no-checkpoint",
        r"inventory\.img|Magic doesn't match|Bad magic",
        "the image path holds no checkpoint that this criu can read",
    ),
    Cause(
        "anonymous-inode",
        r"io_uring|Can't retrieve FDs from socket|Unknown anonymous inode|anon_inode|Unsupported (?:anon|file)",
        "a process has something open that CRIU can't save",
    ),
    Cause(
        "lsm",
        r"lsm:|LSM|apparmor|AppArmor|SELinux|selinux",
        "the security module of the checkpoint is not the one here: name a profile with --lsm-profile",
    ),
    Cause(
        "loopback-down",
        r"kerndat_tcp_repair failed",
        "criu needs the loopback interface of the network namespace that it is started in: ip link set lo up",
    ),
    Cause(
        "vdso",
        # SO_PASSCRED and SO_PASSSEC: since Linux 6.16 only unix sockets have them, which CRIU knows since 4.2
        r"vdso|vDSO|kerndat|Can't get 1:(?:16|34) opt: Operation not supported",
        "this criu does not fit this kernel: use a newer one",
    ),
)


def find(lines: Iterable[str]) -> Cause | None:
    """The cause that the lines tell of, None if they tell of none that is known.

    Args:
        lines: error messages.
    """
    told = list(lines)
    for cause in CAUSES:
        if any(cause.pattern.search(line) for line in told):
            return cause
    return None
