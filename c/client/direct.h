/* The direct way: the command line without a supervisor, a Python program that lies beside this one. */

#ifndef CTR_DIRECT_H
#define CTR_DIRECT_H

#include <stdbool.h>

#include "options.h"

/* Becomes it. Returns only when that is not possible: the exit status, after an error. */
int direct_execute(const struct options *options, char **argv);

/* Whether the container of that id, if there is any, is the one with that process: it may be another one by now. */
bool direct_owns(const char *root, const char *id, int pid);

/* Deletes a container with its help; the exit status of that. */
int direct_delete(const struct options *options, const char *root, const char *id);

#endif
