/* The terminal of the process. */

#ifndef CTR_CONSOLE_H
#define CTR_CONSOLE_H

#include "settings.h"

/*
 * Makes the console slave that was given, or one of the container's devpts, the stdio and the controlling terminal.
 * The master of the latter goes to the engine as CONSOLE, which must be acknowledged.
 */
void console_set_up(struct settings *settings, int socket, int proc);

#endif
