#include "lsm.h"

#include <fcntl.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "procfs.h"

static void write_attribute(int proc, const char *step, const char *name, const char *text)
{
    auto_free char *path = format_text("thread-self/attr/%s", name);

    if (proc_write(proc, path, text) < 0)
        fail(.step = step, .syscall = "write", .number = errno, .path = format_text("/proc/%s", path),
             .message = format_text("write %s to /proc/%s", quoted(text), path));
}

void lsm_set_apparmor(int proc, const char *profile)
{
    auto_free char *text = format_text("exec %s", profile);
    /* since 5.8; attr/exec belongs to whichever module comes first when several are stacked */
    auto_fd own = proc_open(proc, "thread-self/attr/apparmor/exec", O_WRONLY);

    write_attribute(proc, "apply AppArmor profile", own >= 0 ? "apparmor/exec" : "exec", text);
}

void lsm_set_selinux(int proc, const char *label)
{
    write_attribute(proc, "set SELinux label", "exec", label);
}

void lsm_set_keyring_label(int proc, const char *label)
{
    write_attribute(proc, "set SELinux label of keyring", "keycreate", label);
}
