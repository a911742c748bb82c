"""System calls that Python lacks, one thin wrapper each, and the numbers of the start-up protocol (c/kernel).

Every function raises OSError, or the subclass of its errno, with the attribute `syscall` (the name of the call that
failed) and, where there is one, `filename`. Every fd that comes back is close-on-exec and the caller's to close.
Paths are str or bytes. Functions without a man page reference below are described by the man page of their name.
"""

from collections.abc import Iterable, Sequence

_Path = str | bytes

# Paths and mounts

def openat2(dirfd: int, path: _Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Opens by openat2(2), adding O_CLOEXEC; EAGAIN of RESOLVE_IN_ROOT and RESOLVE_BENEATH is retried 128 times."""

def open_tree(dirfd: int, path: _Path, flags: int) -> int:
    """The mount (or, with OPEN_TREE_CLONE, a detached copy of it) at a path."""

def move_mount(from_dirfd: int, from_path: _Path, to_dirfd: int, to_path: _Path, flags: int) -> None:
    """Attaches a detached mount, or moves an attached one."""

def fsopen(name: str, flags: int = 0) -> int:
    """A new filesystem context of a type."""

def fsconfig(fd: int, cmd: int, key: str | None = None, value: _Path | None = None, aux: int = 0) -> None:
    """Sets a parameter of a filesystem context, or makes the superblock.

    For FSCONFIG_SET_BINARY `value` is bytes and `aux` its length, filled in. A failure carries the messages that the
    kernel left in the context.
    """

def fsmount(fd: int, flags: int, attr_flags: int) -> int:
    """A detached mount of the superblock of a filesystem context."""

def fspick(dirfd: int, path: _Path, flags: int) -> int:
    """A filesystem context to reconfigure the mounted filesystem at a path."""

def mount_setattr(
    dirfd: int,
    path: _Path,
    flags: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Changes MOUNT_ATTR_* of a mount, or of the whole tree with AT_RECURSIVE."""

def mount(source: _Path | None, target: _Path, fstype: str | None, flags: int, data: _Path | None) -> None:
    """The old mount(2)."""

def umount2(target: _Path, flags: int) -> None:
    """Unmounts."""

def pivot_root(new_root: _Path, put_old: _Path) -> None:
    """Moves the root of the mount namespace."""

def fstatfs_type(fd: int) -> int:
    """The magic number (`*_MAGIC`) of the filesystem that an fd, O_PATH ones included, is on."""

def statx_mnt_id(fd: int) -> int:
    """The id of the mount that an fd is on: the unique one, or before Linux 6.8 the one that may be reused."""

def is_mount_root(dirfd: int, path: _Path) -> bool:
    """Whether a path, taken without following a last symlink, is the root of a mount; "" is dirfd itself."""

# Namespaces

def setns(fd: int, nstype: int) -> None:
    """Joins the namespace of an fd, or those in `nstype` of the process of a pidfd."""

def unshare(flags: int) -> None:
    """Leaves shared namespaces (CLONE_NEW*) for new ones."""

def sethostname(name: str | bytes) -> None:
    """Sets the host name of the UTS namespace."""

def setdomainname(name: str | bytes) -> None:
    """Sets the NIS domain name of the UTS namespace."""

# Processes

def pidfd_open(pid: int, flags: int = 0) -> int:
    """A pidfd of a process."""

def pidfd_send_signal(pidfd: int, sig: int) -> None:
    """Signals the process of a pidfd."""

def pidfd_info(pidfd: int) -> int | None:
    """The wait status of a process that has been reaped, whoever its parent was; None as long as it has not.

    Needs Linux 6.15, and a pidfd that was open when the process was reaped (PIDFD_GET_INFO, PIDFD_INFO_EXIT).
    """

def reboot(command: int) -> None:
    """Reboots, halts or powers off the machine, or ends the pid namespace when its pid 1 calls; reboot(2)."""

def prctl(option: int, a2: int | bytes = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
    """Calls prctl(2); `a2` is bytes for options such as PR_SET_NAME that take a string."""

def prlimit(pid: int, resource: int, soft: int, hard: int) -> tuple[int, int]:
    """Sets a limit of a process (0: this one); RLIM_INFINITY or -1 is none. Returns what stood before."""

def close_range(first: int, last: int, flags: int = 0) -> None:
    """Closes fds first to last inclusive, or marks them with CLOSE_RANGE_CLOEXEC."""

def spawn(
    exe: int | _Path,
    argv: Sequence[_Path],
    env: Sequence[_Path],
    fd_map: Sequence[tuple[int, int]],
    close_others: bool = False,
) -> tuple[int, int]:
    """Starts a program, without a copy of this process's memory (CLONE_VM and CLONE_VFORK); safe beside other threads.

    The child has the signal mask and all handlers at their defaults, and only the fds of the map besides those that
    are not close-on-exec.

    Args:
        exe: an fd of the binary, not a script when it is close-on-exec (execveat(2), BUGS); or a path.
        argv: arguments, argv[0] included.
        env: NAME=value strings.
        fd_map: (source, target) pairs, all at once: swaps and source == target (to keep it open) are fine.
        close_others: beyond stderr the child gets the fds of the map alone, close-on-exec or not.

    Returns:
        pid and pidfd of the child, which the caller must wait for.

    Raises:
        OSError: clone, a dup2 in the child, or execveat failed; the child is reaped by then.
    """

# Sockets

def socketpair() -> tuple[int, int]:
    """Two connected AF_UNIX SOCK_SEQPACKET sockets."""

def connect_unix(path: _Path) -> int:
    """A SOCK_STREAM socket that is connected to a path of at most 107 bytes (else ENAMETOOLONG)."""

def sendmsg(fd: int, data: bytes | bytearray | memoryview, fds: Sequence[int] = ()) -> int:
    """Sends data with up to 253 fds, without SIGPIPE; returns the number of bytes sent. EINTR is retried."""

def recvmsg(fd: int, size: int, max_fds: int = 32) -> tuple[bytes, list[int], int]:
    """Receives at most `size` bytes and their fds; returns both with the MSG_* flags. EINTR is retried.

    Raises:
        OSError: EMSGSIZE if data or fds did not fit; the message is lost then, and its fds are closed.
    """

# Memory files

def memfd_sealed(name: str, contents: bytes | bytearray | memoryview | int) -> int:
    """A read-only fd of a memfd whose contents nobody can change; it can be executed unless vm.memfd_noexec is 2.

    Args:
        name: shown in /proc/PID/exe and /proc/PID/fd.
        contents: bytes, or an fd of a regular file, copied from its start; its offset is left alone.
    """

# Signals

def sigprocmask(how: int, signals: Iterable[int]) -> set[int]:
    """Changes this thread's signal mask (SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK); returns the mask before."""

def signalfd(signals: Iterable[int], flags: int = 0) -> int:
    """An fd that reads the given signals, which must be blocked."""

def read_signalfd(fd: int) -> tuple[int, int, int]:
    """Reads one signal: its number, and for SIGCHLD the child's pid and exit status or signal. EINTR is retried."""

# inotify(7)

def inotify_init(flags: int = 0) -> int:
    """An inotify instance; IN_NONBLOCK is O_NONBLOCK."""

def inotify_add_watch(fd: int, path: _Path, mask: int) -> int:
    """Watches a path for IN_* events; returns the number of the watch, the same for one file under two names."""

def inotify_rm_watch(fd: int, watch: int) -> None:
    """Ends a watch; what it has told already is still read."""

def read_inotify(fd: int) -> list[tuple[int, int, str]]:
    """Events that are there: watch (-1 for IN_Q_OVERFLOW), IN_* bits, name in the directory. EINTR is retried."""

# BPF: see bpf(2)

def bpf_prog_load(
    prog_type: int,
    insns: bytes,
    license: str = "GPL",
    name: str = "",
    attach_type: int = 0,
) -> int:
    """Loads a program of struct bpf_insn[]; a failure carries the end of the verifier's log."""

def bpf_prog_attach(cgroup_fd: int, prog_fd: int, attach_type: int, flags: int, replace_fd: int = 0) -> None:
    """Attaches a program to a cgroup; `replace_fd` is the program that goes, with BPF_F_REPLACE."""

def bpf_prog_detach(cgroup_fd: int, prog_fd: int, attach_type: int) -> None:
    """Detaches a program from a cgroup."""

def bpf_prog_query(cgroup_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs that are attached to a cgroup itself."""

def bpf_prog_get_fd_by_id(prog_id: int) -> int:
    """An fd of the loaded program with an id."""

# The start-up protocol (c/nsexec/protocol.def)

PROTOCOL_VERSION: int
INLINE_MAX: int
MESSAGE_NAMES: dict[int, str]
ATTRIBUTE_NAMES: dict[int, str]

MSG_INDIRECT: int
MSG_ERROR: int
MSG_BOOTSTRAP: int
MSG_CHILD: int
MSG_GO: int
MSG_NAMESPACES_READY: int
MSG_SETTINGS: int
MSG_CONSOLE: int
MSG_SECCOMP_LISTENER: int
MSG_PREPARED: int
MSG_ACKNOWLEDGED: int
MSG_WORKER_HOOKS: int
MSG_WORKER_DONE: int
ATTR_CLONE_FLAGS: int
ATTR_NS_PATH: int
ATTR_NS_PIDFD_FD: int
ATTR_NS_PIDFD_FLAGS: int
ATTR_UIDMAP: int
ATTR_GIDMAP: int
ATTR_NEWUIDMAP: int
ATTR_NEWGIDMAP: int
ATTR_SETGROUPS_DENY: int
ATTR_ROOTLESS_EUID: int
ATTR_OOM_SCORE_ADJ: int
ATTR_TIME_OFFSETS: int
ATTR_CGROUP_FD: int
ATTR_LOG_FD: int
ATTR_KEEPER: int
ATTR_STATUS_FD: int
ATTR_BECOME_ROOT: int
ATTR_TRACE: int
ATTR_PID: int
ATTR_PIDFD: int
ATTR_IN_CGROUP: int
ATTR_CGROUP_TASKS_FD: int
ATTR_ARG: int
ATTR_ENV: int
ATTR_CWD: int
ATTR_UID: int
ATTR_GID: int
ATTR_GROUPS: int
ATTR_UMASK: int
ATTR_CAP_BOUNDING: int
ATTR_CAP_EFFECTIVE: int
ATTR_CAP_INHERITABLE: int
ATTR_CAP_PERMITTED: int
ATTR_CAP_AMBIENT: int
ATTR_RLIMIT: int
ATTR_NO_NEW_PRIVS: int
ATTR_SECCOMP_BPF: int
ATTR_SECCOMP_FLAGS: int
ATTR_APPARMOR: int
ATTR_SELINUX: int
ATTR_PERSONALITY: int
ATTR_KEYRING: int
ATTR_KEYRING_LABEL: int
ATTR_SCHEDULER: int
ATTR_IO_PRIORITY: int
ATTR_CPU_AFFINITY: int
ATTR_CPU_AFFINITY_INITIAL: int
ATTR_MEMORY_POLICY: int
ATTR_CONSOLE_SLAVE_FD: int
ATTR_CONSOLE_ALLOCATE: int
ATTR_CONSOLE_SIZE: int
ATTR_PRESERVE_FDS: int
ATTR_FIFO_FD: int
ATTR_ROOT_FD: int
ATTR_HOOK: int
ATTR_HOOK_PATH: int
ATTR_HOOK_ARG: int
ATTR_HOOK_ENV: int
ATTR_HOOK_TIMEOUT: int
ATTR_HOOK_STATE: int
ATTR_NEW_SESSION: int
ATTR_PARENT_DEATH_SIGNAL: int
ATTR_CONSOLE_MASTER_FD: int
ATTR_LISTENER_FD: int
ATTR_HOME: int
ATTR_ERR_KIND: int
ATTR_ERR_STEP: int
ATTR_ERR_SYSCALL: int
ATTR_ERR_ERRNO: int
ATTR_ERR_PATH: int
ATTR_ERR_JSON_PATH: int
ATTR_ERR_MESSAGE: int
ATTR_ERR_HINT: int
