#include "options.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"

#define AUTOMATIC "auto"
#define SYSTEM_DIRECTORY "/run/ctrun"
#define SOCKET_NAME "supervisor.sock"

/* The global flags in ctr_supervisor/cli/surroundings.py that take a value; a test compares them. */
static const char *const with_value[] = {"log", "log-format", "root", "trace", "criu", "rootless"};
static const char *const without_value[] = {"debug", "systemd-cgroup", "version", "v", "help", "h"};

static bool is_one_of(const char *name, size_t size, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return true;
    return false;
}

static bool is(const char *name, size_t size, const char *wanted)
{
    return is_one_of(name, size, &wanted, 1);
}

static void note(struct options *options, const char *name, size_t size, const char *value)
{
    if (is(name, size, "log"))
        options->log = *value ? value : NULL;
    else if (is(name, size, "log-format"))
        options->log_format = value;
}

static bool is_true(const char *value)
{
    static const char *const words[] = {"1", "t", "T", "true", "TRUE", "True"};

    return is_one_of(value, strlen(value), words, sizeof(words) / sizeof(*words));
}

void options_take(struct options *options, char **argv)
{
    if (!*argv)
        return;
    for (char **next = argv + 1; *next;) {
        const char *argument = *next;
        if (argument[0] != '-' || !argument[1] || strcmp(argument, "--") == 0)
            break;
        const char *name = argument + (argument[1] == '-' ? 2 : 1), *equals = strchr(name, '=');
        size_t size = equals ? (size_t)(equals - name) : strlen(name);
        if (is(name, size, "supervisor")) {
            options->supervisor = equals ? equals + 1 : AUTOMATIC;
            /* what follows moves down, the NULL at the end too */
            for (char **moved = next; *moved; moved++)
                *moved = moved[1];
            continue;
        }
        next++;
        if (is(name, size, "debug"))
            options->debug = !equals || is_true(equals + 1);
        if (is_one_of(name, size, without_value, sizeof(without_value) / sizeof(*without_value)))
            continue;
        /* an unknown flag ends the search: whether the next argument belongs to it nobody knows */
        if (!is_one_of(name, size, with_value, sizeof(with_value) / sizeof(*with_value)) || (!equals && !*next))
            break;
        note(options, name, size, equals ? equals + 1 : *next);
        if (!equals)
            next++;
    }
}

bool options_name_own_files(char *const *argv)
{
    static const char *const places[] = {"/dev/fd/", "/dev/std", "/proc/self/", "/proc/thread-self/"};

    for (; *argv; argv++)
        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
            if (strstr(*argv, places[i]))
                return true;
    return false;
}

/* As in_initial_user_namespace of ctr_supervisor/engine/runtime.py. */
static bool in_initial_user_namespace(void)
{
    auto_fd fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    char map[128];
    unsigned long first, lower, count;
    char more;

    if (fd < 0)
        return true;
    ssize_t size = read(fd, map, sizeof(map) - 1);
    if (size < 0)
        return true;
    map[size] = '\0';
    return sscanf(map, "%lu %lu %lu %c", &first, &lower, &count, &more) == 3 && first == 0 && lower == 0 &&
           count == 4294967295UL;
}

/* As _honours_xdg of ctr_supervisor/cli/surroundings.py: where the socket is, the state root is too. */
static const char *user_directory(void)
{
    const char *directory = getenv("XDG_RUNTIME_DIR"), *user = getenv("USER");

    if (!directory || !*directory)
        return NULL;
    if (geteuid() == 0 && ((user && strcmp(user, "root") == 0) || in_initial_user_namespace()))
        return NULL;
    return directory;
}

static const char *default_socket(void)
{
    const char *directory = user_directory();
    static char *path;

    if (!directory)
        return SYSTEM_DIRECTORY "/" SOCKET_NAME;
    return asprintf(&path, "%s/ctrun/" SOCKET_NAME, directory) < 0 ? NULL : path;
}

const char *options_socket(const struct options *options)
{
    const char *choice = options->supervisor ? options->supervisor : getenv(SUPERVISOR_VARIABLE);

    if (!choice || !*choice || strcmp(choice, "0") == 0)
        return NULL;
    return strcmp(choice, "1") == 0 || strcmp(choice, AUTOMATIC) == 0 ? default_socket() : choice;
}
