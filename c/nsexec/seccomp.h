/* The system call filter. */

#ifndef CTR_SECCOMP_H
#define CTR_SECCOMP_H

#include <stdbool.h>

#include "settings.h"

bool seccomp_has_listener(const struct settings *settings);

/* Installs the filter. With NEW_LISTENER the listener goes to the engine, and the call returns once that acknowledged.
 */
void seccomp_install(const struct settings *settings, int socket);

#endif
