/* Writing to the caller's stdio. */

#ifndef CTR_OUTPUT_H
#define CTR_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

/* Writes all of it, also where the caller made the fd non-blocking; false on failure, with errno. */
bool output_write(int fd, const void *data, size_t size);

#endif
