/*
 * Stage 0: reads the bootstrap message, joins and makes namespaces, and ends once the container process exists.
 *
 *   engine      stage 0                       container process
 *   BOOTSTRAP ─▶ affinity, oom_score_adj
 *                joins, clone3 ─────────────▶ waits on a pipe
 *                writes the id maps
 *   CHILD     ◀─ pid, pidfd
 *                one byte on the pipe ──────▶ waits for GO (process.c)
 *                exits
 *
 * With KEEPER, stage 0 forks before it joins anything: the fork does all this, and stage 0 stays behind as the parent
 * of the container process, in the host's namespaces and with the rights that it has there.
 */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "context.h"
#include "error.h"
#include "fds.h"
#include "idmap.h"
#include "ids.h"
#include "kernel.h"
#include "namespaces.h"
#include "procfs.h"
#include "signals.h"

static void set_initial_affinity(const struct cpu_mask *mask)
{
    if (mask->size && syscall(SYS_sched_setaffinity, 0, mask->size, mask->bits) < 0)
        fail(.step = "set initial CPU affinity", .syscall = "sched_setaffinity", .number = errno);
}

static void set_oom_score_adj(const struct context *context)
{
    const struct bootstrap *bootstrap = &context->bootstrap;

    if (!bootstrap->oom_score_adj)
        return;
    /* the files of a process that is not dumpable are root's; nothing is joined yet that could profit */
    if (context->unprivileged)
        set_dumpable(true);
    int result = proc_write(context->proc, "self/oom_score_adj", bootstrap->oom_score_adj), number = errno;
    if (context->unprivileged)
        set_dumpable(false);
    if (result == 0)
        return;
    if (bootstrap->rootless_euid && (number == EACCES || number == EPERM)) {
        log_line("ignoring: oom_score_adj %s: %s", bootstrap->oom_score_adj, strerror(number));
        return;
    }
    fail(.step = format_text("set oom_score_adj to %s", bootstrap->oom_score_adj), .syscall = "write", .number = number,
         .path = "/proc/self/oom_score_adj");
}

static pid_t clone_once(uint64_t flags, int cgroup, int *pidfd)
{
    struct clone_args arguments = {
        .flags = flags | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        /* with CLONE_PARENT the kernel takes the exit signal of stage 0, and refuses another one */
        .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };

    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
    if (pid >= 0 || errno != ENOSYS)
        return pid;
    if (cgroup >= 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    /* before 5.3, or under a seccomp profile that can't look into the struct and so hides clone3 */
#if defined(__s390x__) || defined(__s390__)
    return (pid_t)syscall(SYS_clone, NULL, flags | CLONE_PIDFD | SIGCHLD, pidfd, NULL, 0);
#else
    return (pid_t)syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, 0);
#endif
}

static const char *clone_hint(int number)
{
    if (number == ENOSPC || number == EUSERS)
        return "a limit in /proc/sys/user is reached, or is 0";
    if (number == EINVAL)
        return "does this kernel have all the namespaces?";
    return NULL;
}

/* 0 in the container process; its pid in stage 0. */
static pid_t clone_container(const struct bootstrap *bootstrap, int *pidfd, bool *in_cgroup)
{
    /*
     * A new cgroup namespace takes the cgroup at that moment for its root, clone3 has no offsets for a new time
     * namespace, and an IPC namespace's mqueue belongs to whoever made it, who is nobody in a user namespace without
     * maps: the container process makes these itself, after GO.
     */
    uint64_t flags = (bootstrap->clone_flags & ~bootstrap_late_namespaces(bootstrap)) | CLONE_PARENT;

    if (bootstrap->cgroup >= 0) {
        pid_t pid = clone_once(flags, bootstrap->cgroup, pidfd);
        if (pid >= 0) {
            *in_cgroup = true;
            return pid;
        }
        /* a threaded or full cgroup, one that is no cgroup v2, or rights that only a later write has: the engine's way
         */
        log_line("ignoring: clone3 into the cgroup: %s", strerror(errno));
    }
    pid_t pid = clone_once(flags, -1, pidfd);
    if (pid < 0)
        fail(.step = "make namespaces", .syscall = "clone3", .number = errno,
             .message = format_text("clone with flags %#llx", (unsigned long long)bootstrap->clone_flags),
             .hint = clone_hint(errno));
    return pid;
}

static void send_child(int socket, pid_t pid, int pidfd, bool in_cgroup)
{
    struct writer writer = message_begin(MSG_CHILD);

    put_u32(&writer, ATTR_PID, (uint32_t)pid);
    put_fd(&writer, ATTR_PIDFD, pidfd);
    put_bool(&writer, ATTR_IN_CGROUP, in_cgroup);
    if (!message_send(socket, &writer))
        quit();
}

static void make_container(struct context *context)
{
    struct bootstrap *bootstrap = &context->bootstrap;
    bool in_cgroup = false, new_user_namespace = (bootstrap->clone_flags & CLONE_NEWUSER) != 0;
    int release[2], pidfd = -1;

    namespaces_join(bootstrap, context->proc);
    log_step("set affinity and oom_score_adj, join namespaces");
    if (bootstrap->become_root && !bootstrap_becomes_root_late(bootstrap)) {
        become_root(context->proc);
        set_dumpable(false);
    }
    /* the maps are written to files that must belong to the unprivileged writer, and newuidmap looks at that too */
    if (context->unprivileged && new_user_namespace)
        set_dumpable(true);
    if (pipe2(release, O_CLOEXEC) < 0)
        fail(.step = "make namespaces", .syscall = "pipe2", .number = errno);

    pid_t pid = clone_container(bootstrap, &pidfd, &in_cgroup);
    if (pid == 0) {
        close(release[1]);
        process_run(context, release[0]);
    }
    close(release[0]);
    log_step("clone3");
    idmap_write(bootstrap, context->proc, pid);
    set_dumpable(false);
    log_line("made process %d", (int)pid);
    log_step("write id maps");
    send_child(context->socket, pid, pidfd, in_cgroup);
    log_step("tell the engine");
    if (write(release[1], "", 1) != 1)
        _exit(1); /* the container process died, which its parent sees */
    _exit(0);
}

void prelude_run(int socket, int inherited_end)
{
    struct context context = {.socket = socket,
                              .inherited_end = inherited_end,
                              .unprivileged = geteuid() != 0,
                              .time_offsets = -1,
                              .own_fds = -1};
    struct message message;

    report_to(socket);
    prctl(PR_SET_NAME, "ctr-init:0");
    set_dumpable(false);
    signals_prepare();
    /* before anything that can fail: who sends to a socket that closed already gets no chance to read why */
    message_expect(socket, MSG_BOOTSTRAP, &message);
    context.proc = proc_open_root();
    fds_close_on_exec(context.proc, 3);
    bootstrap_read(&message, &context.bootstrap);
    message_release(&message);
    log_to(context.bootstrap.log, "ctr-init:0");
    log_steps(context.bootstrap.trace);
    log_step("read bootstrap message");

    if (context.bootstrap.keeper) {
        pid_t helper = fork();
        if (helper < 0)
            fail(.step = "make keeper", .syscall = "fork", .number = errno);
        if (helper > 0)
            keeper_run(helper, context.bootstrap.status);
        close_fd(&context.bootstrap.status);
    }
    set_initial_affinity(&context.bootstrap.initial_affinity);
    set_oom_score_adj(&context);
    make_container(&context);
    _exit(1);
}
