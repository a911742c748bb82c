/* What stage 0 learns and the container process inherits with its copy of the memory. */

#ifndef CTR_CONTEXT_H
#define CTR_CONTEXT_H

#include <stdbool.h>
#include <sys/types.h>

#include "bootstrap.h"

struct context {
    int socket;        /* to the engine, shared by stage 0 and the container process */
    int proc;          /* the host's /proc, O_PATH */
    int inherited_end; /* fds 3 to inherited_end - 1 were open without a gap when the program started */
    bool unprivileged; /* the engine's effective uid is not 0 */
    struct bootstrap bootstrap;
};

/* Stage 0: makes the container process and ends. */
_Noreturn void prelude_run(int socket, int inherited_end);

/* The container process: waits until `released` is readable, then goes all the way to execve. */
_Noreturn void process_run(struct context *context, int released);

/* Parent of the container process that ends when it does, and leaves its exit status in the directory. */
_Noreturn void keeper_run(pid_t helper, int status_directory);

#endif
