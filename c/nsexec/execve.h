/* The program of the container. */

#ifndef CTR_EXECVE_H
#define CTR_EXECVE_H

#include "settings.h"

/*
 * The path to execute for the first argument: itself when it has a slash, else the first hit in the PATH of the
 * container's environment. Ends the process when there is none, with the messages that engines know from runc (they
 * choose their exit status 126 or 127 by them).
 */
char *executable_find(const struct settings *settings);

/* Replaces this process by the program; on failure ends it. */
_Noreturn void executable_run(const char *path, const struct settings *settings);

#endif
