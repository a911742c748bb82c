#include "direct.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"
#include "../nsexec/signals.h"
#include "report.h"

/* Beside us in a checkout and in a wheel's bin/, in PREFIX/lib after `make install`. */
static const char *const places[] = {"ctrun-direct", "../lib/ctrun/bin/ctrun-direct"};

#define FAILURE 1
/* state.json has a few hundred bytes */
#define STATE_MAX (1 << 20)

/* Directory of this program, with a slash at its end and no symbolic link in it; false when nothing tells it. */
static bool own_directory(char *directory)
{
    ssize_t size = readlink("/proc/self/exe", directory, PATH_MAX - 1);

    if (size > 0) {
        directory[size] = '\0';
    } else {
        /* without /proc: the path that the kernel was told (getauxval(3)), from the same working directory */
        const char *executed = (const char *)getauxval(AT_EXECFN);
        if (!executed || !realpath(executed, directory))
            return false;
    }
    char *slash = strrchr(directory, '/');
    if (!slash)
        return false;
    slash[1] = '\0';
    return true;
}

/* An interpreter that starts tells of Ctrl-C by a traceback, or loses it; the launcher lets it through again. */
static void hold_interrupts(void)
{
    sigset_t interrupt;

    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, NULL);
}

/* Returns only on failure, with the path that was tried last. */
static void try_places(char **argv, char **tried)
{
    char directory[PATH_MAX];

    *tried = NULL;
    if (!own_directory(directory)) {
        errno = ENOENT;
        return;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        free(*tried);
        if (asprintf(tried, "%s%s", directory, places[i]) < 0) {
            *tried = NULL;
            return;
        }
        execve(*tried, argv, environ);
        /* ENOENT also stands for an interpreter that is missing: the program is here then, and nowhere else */
        int number = errno;
        bool here = access(*tried, F_OK) == 0;
        errno = number;
        if (here)
            return;
    }
}

int direct_execute(const struct options *options, char **argv)
{
    auto_free char *tried = NULL;

    hold_interrupts();
    try_places(argv, &tried);
    report_error(options, "cannot run %s: %s", tried ? tried : places[0], error_text(errno));
    return FAILURE;
}

bool direct_owns(const char *root, const char *id, int pid)
{
    static const char name[] = "\"init_process_pid\":";
    auto_free char *path = NULL, *text = calloc(1, STATE_MAX + 1);

    if (!text || asprintf(&path, "%s/%s/state.json", root, id) < 0)
        return false;
    auto_fd file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    /* half of it may be gone: deleting the rest harms nobody */
    if (file < 0)
        return true;
    size_t size = 0;
    for (ssize_t got; size < STATE_MAX && (got = read(file, text + size, STATE_MAX - size)) > 0;)
        size += (size_t)got;
    const char *found = strstr(text, name);
    return !found || strtol(found + sizeof(name) - 1, NULL, 10) == pid;
}

static char **delete_arguments(const struct options *options, const char *root, const char *id, const char **argv)
{
    size_t count = 0;

    argv[count++] = "ctrun";
    if (options->debug)
        argv[count++] = "--debug";
    if (options->log) {
        argv[count++] = "--log";
        argv[count++] = options->log;
    }
    if (options->log_format) {
        argv[count++] = "--log-format";
        argv[count++] = options->log_format;
    }
    if (*root) {
        argv[count++] = "--root";
        argv[count++] = root;
    }
    argv[count++] = "delete";
    argv[count++] = "--force";
    argv[count++] = "--";
    argv[count++] = id;
    argv[count] = NULL;
    return (char **)argv;
}

int direct_delete(const struct options *options, const char *root, const char *id)
{
    const char *argv[16];
    pid_t child = fork();
    int status;

    if (child < 0) {
        report_error(options, "deleting the container: fork: %s", error_text(errno));
        return FAILURE;
    }
    if (child == 0) {
        signals_reset();
        _exit(direct_execute(options, delete_arguments(options, root, id, argv)));
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return FAILURE;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
