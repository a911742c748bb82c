/* What stands before the verb, as far as the client needs it; the Python side parses all of it again. */

#ifndef CTR_OPTIONS_H
#define CTR_OPTIONS_H

#include <stdbool.h>

#define SUPERVISOR_VARIABLE "CTRUN_SUPERVISOR"

struct options {
    bool debug;
    const char *log;        /* NULL: standard error */
    const char *log_format; /* NULL: text */
    const char *supervisor; /* value of --supervisor, "auto" without one; NULL when it was not given */
};

/* Reads the global flags, by the rules of ctr_supervisor/cli/parser.py, and removes --supervisor from argv. */
void options_take(struct options *options, char **argv);

/*
 * Path of the supervisor's socket, from the flag or else the environment; NULL when there shall be no supervisor.
 * It stays valid.
 */
const char *options_socket(const struct options *options);

/* Whether an argument is a path that means another file in another process, such as that of a shell's `<(...)`. */
bool options_name_own_files(char *const *argv);

#endif
