#include "error.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "message.h"

static int report_fd = -1;
static bool (*report_send)(int, struct writer *) = message_send;
static int log_fd = -1;
static const char *log_stage = "";
static bool steps_wanted;

void report_to(int socket)
{
    report_fd = socket;
    report_send = message_send;
}

void report_to_pipe(int pipe)
{
    report_fd = pipe;
    report_send = message_write;
}

void log_to(int fd, const char *stage)
{
    log_fd = fd;
    log_stage = stage;
    if (fd < 0)
        return;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        log_fd = -1;
}

void log_line(const char *format, ...)
{
    if (log_fd < 0)
        return;

    char line[512];
    struct timespec now = {0};
    va_list arguments;

    /* CLOCK_REALTIME, because time namespaces shift the other clocks */
    clock_gettime(CLOCK_REALTIME, &now);
    int used = snprintf(line, sizeof(line), "%lld.%09ld %s ", (long long)now.tv_sec, now.tv_nsec, log_stage);
    va_start(arguments, format);
    int added = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
    va_end(arguments);
    if (added < 0)
        return;
    size_t length = (size_t)used + (size_t)added;
    if (length > sizeof(line) - 2)
        length = sizeof(line) - 2;
    line[length++] = '\n';
    if (write(log_fd, line, length) < 0)
        return; /* ignoring: a debug line is not worth a container */
}

void log_steps(bool wanted)
{
    steps_wanted = wanted;
}

void log_step(const char *step)
{
    if (steps_wanted)
        log_line("=%s", step);
}

/* The last resort: whether it is read can't matter any more. */
static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));

    (void)written;
}

void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);

    if (!memory) {
        say("ctr-init: out of memory\n");
        _exit(1);
    }
    return memory;
}

char *format_text(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    size_t size = length < 0 ? 1 : (size_t)length + 1;
    char *text = allocate(size);
    va_start(arguments, format);
    if (vsnprintf(text, size, format, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    return text;
}

char *quoted(const char *text)
{
    static const char hex[] = "0123456789abcdef";
    static const char plain[] = "\a\b\f\n\r\t\v\\\"", escaped[] = "abfnrtv\\\"";
    char *result = allocate(strlen(text) * 4 + 3), *out = result;

    *out++ = '"';
    for (const char *in = text; *in; in++) {
        unsigned char byte = (unsigned char)*in;
        const char *special = strchr(plain, *in);
        if (special) {
            *out++ = '\\';
            *out++ = escaped[special - plain];
        } else if (byte < 0x20 || byte == 0x7f) {
            *out++ = '\\';
            *out++ = 'x';
            *out++ = hex[byte >> 4];
            *out++ = hex[byte & 15];
        } else {
            *out++ = *in;
        }
    }
    *out++ = '"';
    *out = '\0';
    return result;
}

char *failure_text(const struct failure *failure)
{
    const char *message = failure->message ? failure->message : failure->syscall ? failure->syscall : "";
    const char *path = failure->path && !strstr(message, failure->path) ? failure->path : "";
    const char *reason = failure->number ? strerror(failure->number) : "";
    const char *json_path = failure->json_path ? failure->json_path : "", *step = failure->step ? failure->step : "";

    auto_free char *what = format_text("%s%s%s", message, *message && *path ? " " : "", path);
    char *text = format_text("%s%s%s%s%s%s%s", json_path, *json_path ? ": " : "", step, *step && *what ? ": " : "",
                             what, *reason && (*step || *what || *json_path) ? ": " : "", reason);
    if (*reason) {
        char *start = text + strlen(text) - strlen(reason);
        *start = (char)tolower((unsigned char)*start);
    }
    return text;
}

static bool send_failure(const struct failure *failure)
{
    struct writer writer = message_begin(MSG_ERROR);
    const struct {
        enum attribute_type type;
        const char *text;
    } texts[] = {
        {ATTR_ERR_KIND, failure->kind}, {ATTR_ERR_STEP, failure->step},           {ATTR_ERR_SYSCALL, failure->syscall},
        {ATTR_ERR_PATH, failure->path}, {ATTR_ERR_JSON_PATH, failure->json_path}, {ATTR_ERR_MESSAGE, failure->message},
        {ATTR_ERR_HINT, failure->hint},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].text && *texts[i].text)
            put_string(&writer, texts[i].type, texts[i].text);
    if (failure->number)
        put_u32(&writer, ATTR_ERR_ERRNO, (uint32_t)failure->number);
    return report_send(report_fd, &writer);
}

void fail_with(const struct failure *failure)
{
    log_line("failed: %s", failure->message ? failure->message : failure->step ? failure->step : "");
    if (report_fd < 0 || !send_failure(failure)) {
        auto_free char *text = failure_text(failure);
        auto_free char *line = format_text("%s\n", text);
        say(line);
    }
    _exit(1);
}

void quit(void)
{
    log_line("the engine is gone");
    _exit(1);
}
