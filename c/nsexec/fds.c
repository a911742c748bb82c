#include "fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"
#include "procfs.h"

int fds_inherited_end(int socket)
{
    int fd = 3;

    while (fd != socket && fcntl(fd, F_GETFD) >= 0)
        fd++;
    return fd;
}

static void shut(int fd, bool on_exec)
{
    if (!on_exec) {
        close(fd);
        return;
    }
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0 && fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
        fail(.step = "close inherited fds", .syscall = "fcntl", .number = errno);
}

/* The way of kernels before 5.9, or 5.11 for close-on-exec. */
static void shut_by_procfs(int proc, int first, int last, bool on_exec)
{
    auto_fd own_proc = -1;

    if (proc < 0)
        proc = own_proc = proc_open_root();
    int list = proc_open(proc, "self/fd", O_RDONLY | O_DIRECTORY);
    DIR *directory = list < 0 ? NULL : fdopendir(list);
    if (!directory)
        fail(.step = "close inherited fds", .syscall = "open", .number = errno, .path = "/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(directory));) {
        char *end;
        long fd = strtol(entry->d_name, &end, 10);
        if (end != entry->d_name && !*end && fd >= first && fd <= last && fd != list && fd != own_proc)
            shut((int)fd, on_exec);
    }
    closedir(directory);
}

static void shut_range(int proc, int first, int last, bool on_exec)
{
    if (first > last)
        return;
    if (syscall(SYS_close_range, first, last, on_exec ? CLOSE_RANGE_CLOEXEC : 0) < 0)
        shut_by_procfs(proc, first, last, on_exec);
}

void fds_close_on_exec(int proc, int first)
{
    shut_range(proc, first, INT_MAX, true);
}

static int compare(const void *left, const void *right)
{
    const int *a = left, *b = right;

    return (*a > *b) - (*a < *b);
}

void fds_close_all_but(int proc, int first, int *kept, size_t count)
{
    qsort(kept, count, sizeof(*kept), compare);
    for (size_t i = 0; i < count; i++) {
        if (kept[i] < first)
            continue;
        shut_range(proc, first, kept[i] - 1, false);
        first = kept[i] + 1;
    }
    shut_range(proc, first, INT_MAX, false);
}

void fds_preserve(unsigned count, int inherited_end)
{
    /* a number that nobody passed could be one of our own fds by now, with the host behind it (CVE-2024-21626) */
    if (count > (unsigned)inherited_end - 3)
        fail(.step = "preserve fds", .number = EBADF, .message = format_text("file descriptor %d", inherited_end));
    for (int fd = 3; fd < 3 + (int)count; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0 || fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) < 0)
            fail(.step = "preserve fds", .syscall = "fcntl", .number = errno,
                 .message = format_text("file descriptor %d", fd));
    }
}
