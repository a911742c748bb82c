/* Ownership by scope: what is declared with one of these is released when its block ends. */

#ifndef CTR_CLEANUP_H
#define CTR_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_memory(void *pointer)
{
    free(*(void **)pointer);
}

#define auto_fd __attribute__((cleanup(cleanup_fd))) int
#define auto_free __attribute__((cleanup(cleanup_memory)))

/* Closes the fd and forgets its number; does nothing the second time. */
static inline void close_fd(int *fd)
{
    int number = *fd;

    *fd = -1;
    if (number >= 0)
        close(number);
}

/* Hands the fd and the duty to close it to the caller. */
static inline int take_fd(int *fd)
{
    int number = *fd;

    *fd = -1;
    return number;
}

#endif
