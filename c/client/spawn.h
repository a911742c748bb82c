/* Starts ctr-init as a child of this process, for the supervisor's job that speaks with it. */

#ifndef CTR_SPAWN_H
#define CTR_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

struct spawn {
    int executable;
    int socket;
    char **argv;
    char **env;
    int preserve_fds; /* how many fds from 3 on it inherits; the socket becomes the next one */
};

/* What went wrong, in the terms of ctr_common/errors.py. */
struct spawn_failure {
    const char *kind;
    const char *syscall; /* "" where none failed */
    int number;          /* errno, or 0 */
    char message[96];
};

/* Its pid, or -1. */
pid_t spawn_child(struct spawn *spawn, struct spawn_failure *failure);

#endif
