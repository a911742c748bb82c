#include "console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"
#include "message.h"
#include "procfs.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

#define PTMX_PATH "/dev/pts/ptmx"
#define STEP "allocate console"

/* O_PATH, so that a device that an image put in this place is looked at without being opened. */
static int find_ptmx(void)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_NO_SYMLINKS};

    int fd = (int)syscall(SYS_openat2, AT_FDCWD, PTMX_PATH, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        fd = open(PTMX_PATH, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        fail(.step = STEP, .syscall = "openat2", .number = errno, .path = PTMX_PATH);
    return fd;
}

/* The ptmx of a devpts (CVE-2025-52565: anything else there could be a file that the image chose). */
static int open_ptmx(int proc)
{
    auto_fd found = find_ptmx();
    auto_free char *name = format_text("%d", found);
    struct stat status;
    struct statfs filesystem;

    if (fstat(found, &status) < 0 || fstatfs(found, &filesystem) < 0)
        fail(.step = STEP, .syscall = "fstat", .number = errno, .path = PTMX_PATH);
    if ((unsigned long)filesystem.f_type != DEVPTS_SUPER_MAGIC || !S_ISCHR(status.st_mode) ||
        status.st_rdev != makedev(5, 2))
        fail(.step = STEP, .path = PTMX_PATH, .message = PTMX_PATH " is not the multiplexer of a devpts");
    int master = proc_open_link(proc, "fd", name, O_RDWR | O_NOCTTY);
    if (master < 0)
        fail(.step = STEP, .syscall = "open", .number = errno, .path = PTMX_PATH);
    return master;
}

static void set_size(int terminal, const struct settings *settings)
{
    struct winsize size = {.ws_col = (unsigned short)settings->console_width,
                           .ws_row = (unsigned short)settings->console_height};

    if (settings->console_sized && ioctl(terminal, TIOCSWINSZ, &size) < 0)
        fail(.step = "set console size", .syscall = "ioctl", .number = errno);
}

static int allocate_console(const struct settings *settings, int socket, int proc)
{
    auto_fd master = open_ptmx(proc);
    int unlocked = 0;

    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        fail(.step = STEP, .syscall = "ioctl", .number = errno, .path = PTMX_PATH);
    /* the slave of this very master, whatever is mounted over /dev/pts by now */
    auto_fd slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        fail(.step = STEP, .syscall = "ioctl", .number = errno, .path = PTMX_PATH);
    set_size(slave, settings);

    struct writer writer = message_begin(MSG_CONSOLE);
    put_fd(&writer, ATTR_CONSOLE_MASTER_FD, master);
    if (!message_send(socket, &writer))
        quit();
    message_acknowledged(socket);
    return take_fd(&slave);
}

void console_set_up(struct settings *settings, int socket, int proc)
{
    if (settings->console_allocate) {
        settings->console_slave = allocate_console(settings, socket, proc);
    } else {
        if (settings->console_slave < 0)
            return;
        set_size(settings->console_slave, settings);
    }
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (dup2(settings->console_slave, fd) < 0)
            fail(.step = "set up console", .syscall = "dup2", .number = errno);
    if (ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
        fail(.step = "set controlling terminal", .syscall = "ioctl", .number = errno);
    close_fd(&settings->console_slave);
}
