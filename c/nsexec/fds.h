/* Which fds are open, and which survive execve. */

#ifndef CTR_FDS_H
#define CTR_FDS_H

#include <stddef.h>

/* The first fd from 3 on that is not open or is `socket`: the end of what a caller wants to preserve. */
int fds_inherited_end(int socket);

/* Makes every fd from first on close-on-exec. proc: see proc_open_root; -1 when there is none yet. */
void fds_close_on_exec(int proc, int first);

/* Closes every fd from first on but the given ones (-1 among them is ignored). The list is sorted in place. */
void fds_close_all_but(int proc, int first, int *kept, size_t count);

/* Makes fds 3 to 3 + count - 1 survive execve; fails when one of them was not handed to this program. */
void fds_preserve(unsigned count, int inherited_end);

#endif
