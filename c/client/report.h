/* What the client itself has to say, in the shapes of ctr_common/log.py, which engines parse. */

#ifndef CTR_REPORT_H
#define CTR_REPORT_H

#include "options.h"

/* An error: to the log and, when that is a file, also plainly to standard error. */
__attribute__((format(printf, 2, 3))) void report_error(const struct options *options, const char *format, ...);

/* A line for the log when --debug was given. */
__attribute__((format(printf, 2, 3))) void report_debug(const struct options *options, const char *format, ...);

/* Text of an errno with a small first letter, as runc prints it. */
const char *error_text(int number);

#endif
