/*
 * ctrun, the part that callers execute: has a running supervisor carry the command line out where one is asked for, and
 * becomes the direct program otherwise.
 */

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "direct.h"
#include "options.h"
#include "session.h"

/* As open_standard_fds of ctr_supervisor/cli/main.py: no fd of ours may take such a number and be written to. */
static void open_standard_fds(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        /* the lowest free number is this one, since those below are open */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

/* In a dialogue a reader who is gone shall be an error, and children have to be waited for. */
static bool supervised(const struct options *options, const char *socket_path, char **argv, int *status)
{
    struct sigaction ignored = {.sa_handler = SIG_IGN}, standard = {.sa_handler = SIG_DFL}, pipe, child;

    open_standard_fds();
    (void)sigaction(SIGPIPE, &ignored, &pipe);
    (void)sigaction(SIGCHLD, &standard, &child);
    bool done = session_run(options, socket_path, argv, status);
    (void)sigaction(SIGPIPE, &pipe, NULL);
    (void)sigaction(SIGCHLD, &child, NULL);
    return done;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    int status;

    (void)argc;
    options_take(&options, argv);
    const char *socket_path = options_socket(&options);
    if (socket_path && !options_name_own_files(argv) && supervised(&options, socket_path, argv, &status))
        return status;
    return direct_execute(&options, argv);
}
