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

/* Where nobody may drop groups (user_namespaces(7)) there is nothing to be dropped that the engine did not have. */
static void set_groups(int proc, const uint32_t *groups, size_t count, const char *step)
{
    if (syscall(CTR_SYS_setgroups, count, groups) == 0)
        return;
    int number = errno;
    if (count > 0 || number != EPERM || !setgroups_denied(proc))
        fail(.step = step, .syscall = "setgroups", .number = number);
}

void become_root(int proc)
{
    set_groups(proc, NULL, 0, "drop groups");
    set_ids(0, 0);
}

void become_user(int proc, uint32_t uid, uint32_t gid, const uint32_t *groups, size_t group_count)
{
    if (groups)
        set_groups(proc, groups, group_count, "set groups");
    set_ids(uid, gid);
}
