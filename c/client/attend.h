/* In the foreground for a container process, as ctr_supervisor/process/foreground.py is without a supervisor. */

#ifndef CTR_ATTEND_H
#define CTR_ATTEND_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Holds signals back for the process from now on; false on failure, with errno.
 *
 * `subreaper`: adopt the container's orphans.
 */
bool attend_prepare(bool subreaper);

/*
 * Serves the process, a child of ours, until it ends.
 *
 * `console` is the master of its terminal, or -1; closed here. `handle` is called with `context` when `connection`, an
 * fd, has something to read, as long as it returns true.
 *
 * Returns its exit status as a shell shows it; -1 on failure, with errno.
 */
int attend(pid_t pid, int console, int connection, bool (*handle)(void *context), void *context);

/* Waits for a child and gives its exit status as a shell shows it; -1 on failure, with errno. */
int attend_wait(pid_t pid);

#endif
