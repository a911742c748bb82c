/*
 * The keeper: what stays of stage 0 as the parent of a container process that a supervisor owns. It outlives the
 * supervisor, holds the container's stdio, and writes down how the container ended.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "context.h"
#include "error.h"
#include "fds.h"
#include "procfs.h"

#define STATUS_FILE "exit-status"
#define STATUS_TEMPORARY ".exit-status.new"

static void write_status(int directory, int status)
{
    auto_free char *text = format_text("%d\n", status);
    auto_fd file = openat(directory, STATUS_TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (file < 0)
        return; /* ignoring: the container was deleted meanwhile */
    if (write_at_once(file, text, strlen(text)) < 0)
        return;
    (void)renameat(directory, STATUS_TEMPORARY, directory, STATUS_FILE);
}

void keeper_run(pid_t helper, int status_directory)
{
    sigset_t all;
    int kept[] = {status_directory}, status = 0, result = 1;

    report_to(-1);
    log_to(-1, "");
    prctl(PR_SET_NAME, "ctr-init:keeper");
    /* only SIGKILL may part a container from its record; a terminal's signals are for the container */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    if (chdir("/") < 0)
        _exit(1);
    /* above all the socket: the engine takes its end for execve */
    fds_close_all_but(-1, 3, kept, 1);

    /* the helper clones with CLONE_PARENT, so both it and the container process are children here, and no others */
    for (;;) {
        pid_t pid = waitpid(-1, &status, 0);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            _exit(result);
        if (pid == helper)
            continue;
        write_status(status_directory, status);
        result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}
