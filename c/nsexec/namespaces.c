#include "namespaces.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"
#include "procfs.h"

static void open_paths(struct bootstrap *bootstrap, uint64_t flags, bool covered)
{
    for (size_t i = 0; i < bootstrap->path_count; i++) {
        struct namespace_path *entry = &bootstrap->paths[i];
        if (!(entry->flag & flags) == covered)
            continue;
        entry->fd = open(entry->path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        if (entry->fd < 0)
            fail(.step = format_text("open %s namespace", entry->type), .syscall = "open", .number = errno,
                 .path = entry->path);
    }
}

static bool same_user_namespace(int fd, int proc)
{
    auto_fd own = proc_open_link(proc, "ns", "user", O_RDONLY);
    struct stat left, right;

    return own >= 0 && fstat(own, &left) == 0 && fstat(fd, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

/* False: not permitted yet. setns checks that the file is a namespace of that type. */
static bool join_one(struct namespace_path *entry, int proc)
{
    if (setns(entry->fd, (int)entry->flag) < 0) {
        if (errno == EPERM)
            return false;
        /* the kernel refuses to enter the user namespace that one is in */
        if (errno != EINVAL || entry->flag != CLONE_NEWUSER || !same_user_namespace(entry->fd, proc))
            fail(.step = format_text("join %s namespace", entry->type), .syscall = "setns", .number = errno,
                 .path = entry->path);
    }
    log_line("joined %s namespace %s", entry->type, entry->path);
    entry->joined = true;
    close_fd(&entry->fd);
    return true;
}

static void join_paths(struct bootstrap *bootstrap, int proc, uint64_t flags, bool must)
{
    for (size_t i = 0; i < bootstrap->path_count; i++) {
        struct namespace_path *entry = &bootstrap->paths[i];
        if (entry->fd < 0 || entry->joined || !(entry->flag & flags))
            continue;
        if (!join_one(entry, proc) && must)
            fail(.step = format_text("join %s namespace", entry->type), .syscall = "setns", .number = EPERM,
                 .path = entry->path);
    }
}

static uint64_t path_flags(const struct bootstrap *bootstrap)
{
    uint64_t flags = 0;

    for (size_t i = 0; i < bootstrap->path_count; i++)
        flags |= bootstrap->paths[i].flag;
    return flags;
}

/*
 * All of the process's namespaces with one call. False: not in that way here (before kernel 5.8 setns knew no pidfds;
 * EPERM and EINVAL can concern one namespace alone), so one by one, where the failing one gets its name told.
 */
static bool join_by_pidfd(const struct bootstrap *bootstrap)
{
    if (setns(bootstrap->pidfd, (int)bootstrap->pidfd_flags) == 0) {
        log_line("joined namespaces %#llx by pidfd", (unsigned long long)bootstrap->pidfd_flags);
        return true;
    }
    int number = errno;
    bool has_paths = (path_flags(bootstrap) & bootstrap->pidfd_flags) == bootstrap->pidfd_flags;
    if ((number != EPERM && number != EINVAL) || !has_paths)
        fail(.step = "join namespaces", .syscall = "setns", .number = number, .message = "setns by pidfd");
    return false;
}

/* The paths are /proc/PID/ns/...: they are the right ones only if the process lives still, after they were opened. */
static void check_alive(int pidfd)
{
    struct pollfd polled = {pidfd, POLLIN, 0};

    if (poll(&polled, 1, 0) != 0)
        fail(.step = "join namespaces", .number = ESRCH, .message = "the container's process is gone");
}

void namespaces_join(struct bootstrap *bootstrap, int proc)
{
    const uint64_t other = ~(uint64_t)CLONE_NEWUSER;

    open_paths(bootstrap, bootstrap->pidfd_flags, false);
    join_paths(bootstrap, proc, other, false);
    if (bootstrap->pidfd_flags && !join_by_pidfd(bootstrap)) {
        open_paths(bootstrap, bootstrap->pidfd_flags, true);
        check_alive(bootstrap->pidfd);
        join_paths(bootstrap, proc, other, false);
    }
    join_paths(bootstrap, proc, CLONE_NEWUSER, true);
    join_paths(bootstrap, proc, other, true);
    close_fd(&bootstrap->pidfd);
}

bool namespaces_touch(const struct bootstrap *bootstrap, uint64_t flag)
{
    return ((bootstrap->clone_flags | bootstrap->pidfd_flags | path_flags(bootstrap)) & flag) != 0;
}
