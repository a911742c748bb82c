/* What ctr-init does by hand, without an engine. Both return the exit status. */

#ifndef CTR_VERBS_H
#define CTR_VERBS_H

#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

int verb_decode(const char *path);
int verb_run(const char *path);

/* The bytes of a file, or of standard input for "-"; NULL after a line on stderr. The caller frees them. */
uint8_t *read_whole_file(const char *path, size_t *size);

#endif
