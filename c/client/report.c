#include "report.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"
#include "output.h"

const char *error_text(int number)
{
    static char text[128];

    (void)snprintf(text, sizeof(text), "%s", strerror(number));
    text[0] = (char)tolower((unsigned char)text[0]);
    return text;
}

/* The local time as RFC 3339 has it. */
static void print_time(FILE *stream)
{
    time_t now = time(NULL);
    struct tm local;
    char text[32];

    if (!localtime_r(&now, &local) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &local) == 0)
        return;
    fputs(text, stream);
    long minutes = local.tm_gmtoff / 60;
    if (minutes == 0)
        fputc('Z', stream);
    else
        fprintf(stream, "%c%02ld:%02ld", minutes < 0 ? '-' : '+', labs(minutes) / 60, labs(minutes) % 60);
}

/* Length of the UTF-8 sequence that starts here, 0 if there is none; of overlong ones only the plainest are seen. */
static size_t sequence_size(const unsigned char *text)
{
    size_t size = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;

    if (text[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

/* In double quotes, with the escapes of Go's %q or of its encoding/json. */
static void print_quoted(FILE *stream, const char *text, bool json)
{
    static const char named[] = "\a\b\f\n\r\t\v\"\\", letters[] = "abfnrtv\"\\";

    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t size = sequence_size(at);
        const char *escape = strchr(named, *at);
        if (size == 0)
            fprintf(stream, json ? "\\ufffd" : "\\x%02x", *at);
        else if (escape && !(json && (*at == '\a' || *at == '\v')))
            fprintf(stream, "\\%c", letters[escape - named]);
        else if (*at < 0x20 || *at == 0x7f || (json && strchr("<>&", *at)))
            fprintf(stream, json ? "\\u%04x" : "\\x%02x", *at);
        else
            fwrite(at, size, 1, stream);
        at += size ? size : 1;
    }
    fputc('"', stream);
}

static bool is_bare(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+") == strlen(text);
}

static void print_line(FILE *stream, const struct options *options, int fd, const char *level, const char *text)
{
    if (options->log_format && strcmp(options->log_format, "json") == 0) {
        fprintf(stream, "{\"level\":\"%s\",\"msg\":", level);
        print_quoted(stream, text, true);
        fputs(",\"time\":\"", stream);
        print_time(stream);
        fputs("\"}\n", stream);
    } else if (isatty(fd)) {
        const char *colourless = getenv("NO_COLOR");
        bool colours = !colourless || !*colourless, error = strcmp(level, "error") == 0;
        fprintf(stream, "%s%s%s[0000] %s\n", colours ? (error ? "\x1b[31m" : "\x1b[37m") : "", error ? "ERRO" : "DEBU",
                colours ? "\x1b[0m" : "", text);
    } else {
        fputs("time=\"", stream);
        print_time(stream);
        fprintf(stream, "\" level=%s msg=", level);
        if (is_bare(text))
            fputs(text, stream);
        else
            print_quoted(stream, text, false);
        fputc('\n', stream);
    }
}

static void report(const struct options *options, const char *level, const char *format, va_list arguments)
{
    auto_free char *text = NULL, *line = NULL;
    auto_fd file = -1;
    size_t size;

    if (vasprintf(&text, format, arguments) < 0) {
        text = NULL;
        return;
    }
    if (options->log)
        file = open(options->log, O_WRONLY | O_CREAT | O_APPEND | O_SYNC | O_CLOEXEC, 0644);
    int fd = file >= 0 ? file : STDERR_FILENO;
    FILE *stream = open_memstream(&line, &size);
    if (!stream)
        return;
    print_line(stream, options, fd, level, text);
    if (fclose(stream) != 0)
        return;
    /* a log that can't be written to is no reason to fail */
    (void)output_write(fd, line, strlen(line));
    if (file >= 0 && strcmp(level, "error") == 0) {
        (void)output_write(STDERR_FILENO, text, strlen(text));
        (void)output_write(STDERR_FILENO, "\n", 1);
    }
}

void report_error(const struct options *options, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    report(options, "error", format, arguments);
    va_end(arguments);
}

void report_debug(const struct options *options, const char *format, ...)
{
    va_list arguments;

    if (!options->debug)
        return;
    va_start(arguments, format);
    report(options, "debug", format, arguments);
    va_end(arguments);
}
