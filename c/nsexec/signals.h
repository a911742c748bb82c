/* Signal dispositions and mask. */

#ifndef CTR_SIGNALS_H
#define CTR_SIGNALS_H

/* Default dispositions for all signals and an empty mask: what a program may expect after execve. */
void signals_reset(void);

/*
 * Hang-up, interrupt, quit and termination end this process from here on. For the first process of a pid namespace
 * nothing but SIGKILL does without a handler (pid_namespaces(7)), so that a created container could not be told to go.
 */
void signals_end_the_wait(void);

/* A reader that is gone shows as EPIPE; and children can be waited for whatever the caller had set. */
void signals_prepare(void);

#endif
