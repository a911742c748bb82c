#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nsexec/kernel.h"
#include "../nsexec/signals.h"

#define FIRST_FREE_FD 3
#define STACK_SIZE (64 * 1024)

/* Shared with the child, which runs in our memory until execve. */
struct attempt {
    struct spawn *spawn;
    int error;
    const char *failed;
};

static int give_up(struct attempt *attempt, const char *syscall_name)
{
    attempt->error = errno;
    attempt->failed = syscall_name;
    return 127;
}

/* Only system calls: the parent sleeps in the same memory. */
static int run_child(void *argument)
{
    struct attempt *attempt = argument;
    struct spawn *spawn = attempt->spawn;
    int target = FIRST_FREE_FD + spawn->preserve_fds;

    /* first both move out of the way, as either may have the number that the socket gets */
    int executable = fcntl(spawn->executable, F_DUPFD_CLOEXEC, target + 1);
    int socket = fcntl(spawn->socket, F_DUPFD_CLOEXEC, target + 1);
    if (executable < 0 || socket < 0 || dup2(socket, target) < 0)
        return give_up(attempt, "dup2");
    /* ctr-init closes what is left, but it need not be able to; kernels before 5.11 leave that to it */
    (void)syscall(SYS_close_range, target + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    signals_reset();
    (void)syscall(SYS_execveat, executable, "", spawn->argv, spawn->env, AT_EMPTY_PATH);
    return give_up(attempt, "execveat");
}

/*
 * All fds of our own are close-on-exec, so one that is not came from the caller; handing one of ours to a container
 * would be CVE-2024-21626 again.
 */
static bool check_preserved(int count, struct spawn_failure *failure)
{
    for (int fd = FIRST_FREE_FD; fd < FIRST_FREE_FD + count; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && !(flags & FD_CLOEXEC))
            continue;
        failure->kind = "ConfigError";
        (void)snprintf(failure->message, sizeof(failure->message),
                       "--preserve-fds: file descriptor %d was not passed by the caller", fd);
        return false;
    }
    return true;
}

/* clone(2) as posix_spawn uses it: the parent sleeps until execve, so that an error can be told in its memory. */
static pid_t clone_child(struct attempt *attempt)
{
    void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (stack == MAP_FAILED) {
        give_up(attempt, "mmap");
        return -1;
    }
    pid_t pid = clone(run_child, (char *)stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, attempt);
    if (pid < 0)
        give_up(attempt, "clone");
    munmap(stack, STACK_SIZE);
    if (pid >= 0 && attempt->error) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        pid = -1;
    }
    return pid;
}

pid_t spawn_child(struct spawn *spawn, struct spawn_failure *failure)
{
    struct attempt attempt = {.spawn = spawn, .failed = ""};

    *failure = (struct spawn_failure){.kind = "InitError", .syscall = ""};
    if (!check_preserved(spawn->preserve_fds, failure))
        return -1;
    pid_t pid = clone_child(&attempt);
    if (pid < 0) {
        failure->syscall = attempt.failed;
        failure->number = attempt.error;
        (void)snprintf(failure->message, sizeof(failure->message), "cannot run ctr-init");
    }
    return pid;
}
