/* Failures as structures, and debug lines. */

#ifndef CTR_ERROR_H
#define CTR_ERROR_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

/* One failure; members left out are NULL or 0. The same fields as in ctr_common/errors.py. */
struct failure {
    const char *kind; /* class in ctr_common/errors.py; NULL: InitError */
    const char *step;
    const char *syscall;
    int number; /* errno */
    const char *path;
    const char *json_path;
    const char *message;
    const char *hint;
};

/* Where failures go: the socket to the engine, or -1 for stderr. */
void report_to(int socket);

/* As report_to, for a pipe or a fifo. */
void report_to_pipe(int pipe);

/* Where debug lines go; -1: nowhere. The fd is made non-blocking, so that a reader that is gone or slow stops nobody.
 */
void log_to(int fd, const char *stage);
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether the end of each step is a line too, `=step`, by which its time can be told. */
void log_steps(bool wanted);
void log_step(const char *step);

/*
 * Reports the failure to the engine, or in one line on stderr when there is no engine (any more), and ends the process
 * with status 1: the status that runc's init has, which callers see when execve fails after `start`.
 */
_Noreturn void fail_with(const struct failure *failure);
#define fail(...) fail_with(&(const struct failure){__VA_ARGS__})

/* The line for a failure, as ctr_common/errors.py writes it; the caller frees it. */
char *failure_text(const struct failure *failure);

/* The peer is gone: ends the process without a word, because nobody is left to tell. */
_Noreturn void quit(void);

/* Memory of the given size, zeroed; never NULL. */
void *allocate(size_t size);

/* asprintf that never fails; the caller frees the text. */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The text in double quotes with Go's escapes, because engines read these messages; the caller frees it. */
char *quoted(const char *text);

#endif
