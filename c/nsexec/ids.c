#include "ids.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "kernel.h"
#include "procfs.h"

void set_dumpable(bool dumpable)
{
    if (prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0) < 0)
        fail(.step = "set dumpable", .syscall = "prctl", .number = errno);
}

static bool setgroups_denied(int proc)
{
    char text[16] = "";
    auto_fd fd = proc_open(proc, "self/setgroups", O_RDONLY);

    return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strncmp(text, "deny", 4) == 0;
}

/* The plain system calls: the C library's functions would tell threads that do not exist. */
static void set_ids(uint32_t uid, uint32_t gid)
{
    if (syscall(CTR_SYS_setresgid, gid, gid, gid) < 0)
        fail(.step = "set group", .syscall = "setresgid", .number = errno, .message = format_text("setresgid %u", gid),
             .hint = errno == EINVAL ? "the id is not mapped in the user namespace" : NULL);
    if (syscall(CTR_SYS_setresuid, uid, uid, uid) < 0)
        fail(.step = "set user", .syscall = "setresuid", .number = errno, .message = format_text("setresuid %u", uid),
             .hint = errno == EINVAL ? "the id is not mapped in the user namespace" : NULL);
}

void become_root(int proc)
{
    if (syscall(CTR_SYS_setgroups, 0, NULL) < 0 && !(errno == EPERM && setgroups_denied(proc)))
        fail(.step = "drop groups", .syscall = "setgroups", .number = errno);
    set_ids(0, 0);
}

void become_user(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t group_count)
{
    if (groups && syscall(CTR_SYS_setgroups, group_count, groups) < 0)
        fail(.step = "set groups", .syscall = "setgroups", .number = errno);
    set_ids(uid, gid);
}
