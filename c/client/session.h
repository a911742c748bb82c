/* The dialogue with the supervisor (docs/PROTOCOL.md, Commands of the thin client). */

#ifndef CTR_SESSION_H
#define CTR_SESSION_H

#include <stdbool.h>

#include "options.h"

/*
 * Has the supervisor at the socket run the command line.
 *
 * False when it can't or won't, and nothing has happened yet: the direct way is still open. Otherwise `status` is what
 * to exit with.
 */
bool session_run(const struct options *options, const char *socket_path, char **argv, int *status);

#endif
