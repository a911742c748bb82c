#include "procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"

static bool is_procfs(int fd)
{
    struct statfs status;

    return fstatfs(fd, &status) == 0 && (unsigned long)status.f_type == PROC_SUPER_MAGIC;
}

bool proc_is_root(int fd)
{
    struct stat status;

    /* a directory of a procfs bound over /proc would have the right magic but another inode */
    return is_procfs(fd) && fstat(fd, &status) == 0 && status.st_ino == PROC_ROOT_INO;
}

int proc_open_root(void)
{
    auto_fd proc = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (proc < 0)
        fail(.step = "open procfs", .syscall = "open", .number = errno, .path = "/proc");
    if (!proc_is_root(proc))
        fail(.step = "open procfs", .path = "/proc", .message = "/proc is not a procfs");
    return take_fd(&proc);
}

int proc_open(int proc, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};

    int fd = (int)syscall(SYS_openat2, proc, path, &how, sizeof(how));
    /* EPERM: seccomp profiles from before 5.6 answer so to what they don't know */
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return fd;

    auto_fd plain = openat(proc, path, flags | O_CLOEXEC);
    if (plain < 0)
        return -1;
    if (!is_procfs(plain)) {
        errno = EXDEV;
        return -1;
    }
    return take_fd(&plain);
}

int proc_open_link(int proc, const char *directory, const char *name, int flags)
{
    auto_free char *path = format_text("self/%s", directory);
    auto_fd parent = proc_open(proc, path, O_PATH | O_DIRECTORY);

    if (parent < 0)
        return -1;
    return openat(parent, name, flags | O_CLOEXEC);
}

int write_at_once(int fd, const void *data, size_t size)
{
    ssize_t count;

    do
        count = write(fd, data, size);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -1;
    if ((size_t)count != size) {
        errno = EIO;
        return -1;
    }
    return 0;
}

int proc_write(int proc, const char *path, const char *text)
{
    auto_fd fd = proc_open(proc, path, O_WRONLY);

    if (fd < 0)
        return -1;
    return write_at_once(fd, text, strlen(text));
}
