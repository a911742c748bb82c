/*
 * The container process of a plain user executes ctr-init once more, inside its new user namespace.
 *
 * Who may look into a process that is not dumpable is decided by the user namespace in which its program was executed
 * (ptrace(2); mm->user_ns in the kernel). That would be the engine's, where a plain user has no right to anything, so
 * that neither the setup worker nor a later `exec` could enter the namespaces of the process while it waits for
 * `start`. Being dumpable would let them, and with them everybody whom `exec` brings in (CVE-2016-9962). Executed in
 * the new user namespace it is open to whoever may trace in there: to the user, who owns the namespace, and to nobody
 * in the container without CAP_SYS_PTRACE.
 */

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "context.h"
#include "error.h"
#include "fds.h"
#include "ids.h"
#include "kernel.h"
#include "message.h"
#include "procfs.h"
#include "signals.h"

/* What the second life needs of the bootstrap message. */
static void hand_over(int socket, const struct bootstrap *bootstrap)
{
    struct writer writer = message_begin(MSG_BOOTSTRAP);

    put_bytes(&writer, ATTR_CLONE_FLAGS, &bootstrap->clone_flags, sizeof(bootstrap->clone_flags));
    for (size_t i = 0; i < bootstrap->path_count; i++) {
        auto_free char *text = format_text("%s:%s", bootstrap->paths[i].type, bootstrap->paths[i].path);
        put_string(&writer, ATTR_NS_PATH, text);
    }
    if (bootstrap->time_offsets)
        put_string(&writer, ATTR_TIME_OFFSETS, bootstrap->time_offsets);
    put_bool(&writer, ATTR_NEW_SESSION, bootstrap->new_session);
    put_bool(&writer, ATTR_TRACE, bootstrap->trace);
    if (bootstrap->log >= 0)
        put_fd(&writer, ATTR_LOG_FD, bootstrap->log);
    if (!message_send(socket, &writer))
        fail(.step = "execute ctr-init again", .syscall = "sendmsg", .number = errno);
}

static bool keep_over_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);

    return flags >= 0 && fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) == 0;
}

void reexec_process(const struct context *context)
{
    char *arguments[] = {"ctr-init:1", NULL};
    int ends[2];

    auto_fd program = proc_open_link(context->proc, "", "exe", O_PATH);
    if (program < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        fail(.step = "execute ctr-init again", .syscall = program < 0 ? "open" : "socketpair", .number = errno);
    hand_over(ends[0], &context->bootstrap);
    close(ends[0]);

    auto_free char *place = format_text("%d %d %d %d", ends[1], context->socket, context->proc, context->inherited_end);
    bool kept = keep_over_exec(ends[1]) && keep_over_exec(context->socket) && keep_over_exec(context->proc);
    for (int fd = 3; fd < context->inherited_end; fd++)
        kept = keep_over_exec(fd) && kept;
    if (kept && setenv(REEXEC_VARIABLE, place, 1) == 0)
        syscall(SYS_execveat, program, "", arguments, environ, AT_EMPTY_PATH);
    int number = errno;
    unsetenv(REEXEC_VARIABLE);
    close(ends[1]);
    fds_close_on_exec(context->proc, 3);
    log_line("ignoring: execute ctr-init again: %s", strerror(number));
}

/*
 * The directory of this process's fds as the root of a mount of its own, from which no way leads to the rest of the
 * host's procfs. -1 where it can't be made.
 */
static int own_fds(void)
{
    auto_fd proc = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    auto_fd directory = proc < 0 || !proc_is_root(proc) ? -1 : proc_open(proc, "self/fd", O_PATH | O_DIRECTORY);

    if (directory < 0)
        return -1;
    return (int)syscall(SYS_open_tree, directory, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
}

void reexec_resume(const char *place)
{
    struct context context = {.unprivileged = true, .reexecuted = true, .time_offsets = -1, .own_fds = -1};
    struct message message;
    int handover, end;

    prctl(PR_SET_NAME, "ctr-init:1");
    set_dumpable(false);
    signals_prepare();
    if (sscanf(place, "%d %d %d %d%n", &handover, &context.socket, &context.proc, &context.inherited_end, &end) != 4 ||
        place[end])
        fail(.kind = "ProtocolError", .step = "resume", .message = REEXEC_VARIABLE " is malformed");
    report_to(context.socket);
    fds_close_on_exec(context.proc, 3);
    message_expect(handover, MSG_BOOTSTRAP, &message);
    bootstrap_read(&message, &context.bootstrap);
    message_release(&message);
    close(handover);
    log_to(context.bootstrap.log, "ctr-init:1");
    log_steps(context.bootstrap.trace);
    if (context.bootstrap.clone_flags & CLONE_NEWNS)
        context.own_fds = own_fds();
    log_step("execute ctr-init in the user namespace");
    process_continue(&context);
}
