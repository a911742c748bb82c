#include "execve.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"

/* 0, or the errno of what speaks against executing this file; *where names the call that said so. */
static int check_executable(const char *path, const char **where)
{
    struct stat status;

    *where = "stat";
    if (stat(path, &status) < 0)
        return errno;
    *where = NULL;
    if (S_ISDIR(status.st_mode))
        return EISDIR;
    /* with the effective ids and capabilities, as execve will have it; it knows noexec mounts too */
    if (syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
        return 0;
    if (errno != ENOSYS && errno != EPERM)
        return errno;
    return status.st_mode & 0111 ? 0 : EACCES;
}

static const char *search_path(const struct strings *environment)
{
    const char *path = "";

    for (size_t i = 0; i < environment->count; i++)
        if (strncmp(environment->items[i], "PATH=", 5) == 0)
            path = environment->items[i] + 5;
    return path;
}

static char *find_in_path(const char *name, const char *path)
{
    const char *where;

    while (*name && *path) {
        size_t length = strcspn(path, ":");
        /* an empty element means the working directory, which Go's exec.LookPath refuses to execute from */
        if (length > 0 && path[0] == '/') {
            char *candidate = format_text("%.*s/%s", (int)length, path, name);
            if (check_executable(candidate, &where) == 0)
                return candidate;
            free(candidate);
        }
        path += length + (path[length] == ':');
    }
    return NULL;
}

char *executable_find(const struct settings *settings)
{
    const char *name = settings->arguments.items[0], *where;

    if (!strchr(name, '/')) {
        char *found = find_in_path(name, search_path(&settings->environment));
        if (!found)
            fail(.message = format_text("exec: %s: executable file not found in $PATH", quoted(name)));
        return found;
    }
    int number = check_executable(name, &where);
    if (number)
        fail(.syscall = where ? where : "faccessat2", .number = number, .path = name,
             .message = where ? format_text("exec: %s: %s %s", quoted(name), where, name)
                              : format_text("exec: %s", quoted(name)));
    return format_text("%s", name);
}

void executable_run(const char *path, const struct settings *settings)
{
    execve(path, settings->arguments.items, settings->environment.items);
    fail(.syscall = "execve", .number = errno, .path = path, .message = format_text("exec %s", path));
}
