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
    bool reexecuted;   /* ctr-init was executed again in the new user namespace (reexec.c) */
    bool dumpable;     /* while the setup worker comes and goes */
    int time_offsets;  /* /proc/self/timens_offsets, or -1 */
    int own_fds;       /* the directory of the process's fds and nothing around it, or -1 */
    struct bootstrap bootstrap;
};

/* Stage 0: makes the container process and ends. */
_Noreturn void prelude_run(int socket, int inherited_end);

/* The container process: waits until `released` is readable, then goes all the way to execve. */
_Noreturn void process_run(struct context *context, int released);

/* The same from where reexec_process left it. */
_Noreturn void process_continue(struct context *context);

/* In the environment of ctr-init: the fds that an earlier life of the process left to it. */
#define REEXEC_VARIABLE "CTR_INIT_RESUME"

/* Executes ctr-init again, which goes on with reexec_resume; returns where that is not possible. */
void reexec_process(const struct context *context);
_Noreturn void reexec_resume(const char *place);

/* Parent of the container process that ends when it does, and leaves its exit status in the directory. */
_Noreturn void keeper_run(pid_t helper, int status_directory);

#endif
