/* Runs a program to its end: its input given, its output captured, its time limited. */

#ifndef CTR_SUBPROCESS_H
#define CTR_SUBPROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAPTURE_MAX 4096

struct command {
    const char *path; /* absolute */
    char *const *arguments;
    char *const *environment;
    const uint8_t *input;
    size_t input_size;
    int64_t timeout; /* seconds, -1: none */
};

struct outcome {
    int exec_errno; /* not 0: the program could not be executed */
    bool timed_out; /* it was killed for that */
    int status;     /* wait status */
    char output[CAPTURE_MAX + 1];
    char errors[CAPTURE_MAX + 1];
};

/* Fails (ending the process) only when not even a child process can be made. */
void subprocess_run(const struct command *command, struct outcome *outcome);

/* "exit status 1" or "signal: killed", as Go writes it; the caller frees it. */
char *wait_status_text(int status);

#endif
