/* Signal dispositions and mask. */

#ifndef CTR_SIGNALS_H
#define CTR_SIGNALS_H

/* Default dispositions for all signals and an empty mask: what a program may expect after execve. */
void signals_reset(void);

/* A reader that is gone shows as EPIPE; and children can be waited for whatever the caller had set. */
void signals_prepare(void);

#endif
