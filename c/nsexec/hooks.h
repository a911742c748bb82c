/* startContainer hooks, which run in the container's namespaces right before its program does. */

#ifndef CTR_HOOKS_H
#define CTR_HOOKS_H

#include "settings.h"

/* Runs the hooks in their order; the first that fails ends the process with a HookError. */
void hooks_run(const struct settings *settings);

#endif
