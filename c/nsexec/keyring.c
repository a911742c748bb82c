#include "keyring.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "kernel.h"
#include "lsm.h"

/* Lets processes of the same user in other sessions find the keyring: exec joins it by its name. */
static void let_owner_search(long keyring)
{
    char description[512] = "";
    unsigned permissions = 0;

    /* type;uid;gid;permissions;name, keyctl_describe(3) */
    if (syscall(SYS_keyctl, KEYCTL_DESCRIBE, keyring, description, sizeof(description) - 1) < 0)
        fail(.step = "describe session keyring", .syscall = "keyctl", .number = errno);
    if (sscanf(description, "%*[^;];%*d;%*d;%x;", &permissions) != 1)
        fail(.step = "describe session keyring",
             .message = format_text("unreadable description %s", quoted(description)));
    if (permissions & KEY_USR_SEARCH)
        return;
    if (syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, permissions | KEY_USR_SEARCH) < 0)
        fail(.step = "set permissions of session keyring", .syscall = "keyctl", .number = errno);
}

void keyring_join(const char *name, const char *label, int proc)
{
    if (label)
        lsm_set_keyring_label(proc, label);
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
    int number = errno;
    if (label)
        lsm_set_keyring_label(proc, "");
    if (keyring < 0) {
        /* a kernel without keys, or a seccomp profile around the engine that hides them, has none to leak either */
        if (number == ENOSYS) {
            log_line("ignoring: session keyring: %s", strerror(number));
            return;
        }
        fail(.syscall = "keyctl", .number = number, .message = "unable to join session keyring",
             .hint = number == EDQUOT ? "the user's quota of keys is used up (/proc/sys/kernel/keys)" : NULL);
    }
    let_owner_search(keyring);
}
