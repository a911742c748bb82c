/*
 * Kernel interfaces that the C libraries of Debian 12 lack or hide, under the kernel's own names.
 *
 * struct clone_args and struct open_how stand here rather than coming from <linux/...>, because those headers clash
 * with musl's own.
 */

#ifndef CTR_KERNEL_H
#define CTR_KERNEL_H

#include <stdint.h>
#include <sys/syscall.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

#define RESOLVE_NO_XDEV 0x01
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08

#define DEVPTS_SUPER_MAGIC 0x1cd1
#define PROC_SUPER_MAGIC 0x9fa0
/* fs/proc/root.c: the root directory of every procfs */
#define PROC_ROOT_INO 1

#define SECCOMP_SET_MODE_FILTER 1
#define SECCOMP_FILTER_FLAG_TSYNC (1UL << 0)
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#define SECCOMP_FILTER_FLAG_TSYNC_ESRCH (1UL << 4)

#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SETPERM 5
#define KEYCTL_DESCRIBE 6
#define KEY_USR_SEARCH 0x00080000

#define IOPRIO_WHO_PROCESS 1

/* numbers from 5.0 on are the same on every architecture of Linux but alpha */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif

/* the plain names mean 16-bit ids on the old 32-bit architectures */
#ifdef SYS_setresuid32
#define CTR_SYS_setresuid SYS_setresuid32
#define CTR_SYS_setresgid SYS_setresgid32
#define CTR_SYS_setgroups SYS_setgroups32
#else
#define CTR_SYS_setresuid SYS_setresuid
#define CTR_SYS_setresgid SYS_setresgid
#define CTR_SYS_setgroups SYS_setgroups
#endif

struct clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
    uint64_t set_tid;
    uint64_t set_tid_size;
    uint64_t cgroup;
};

struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

#endif
