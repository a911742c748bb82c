#include "caps.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "error.h"
#include "kernel.h"
#include "settings.h"

#define CAPABILITY_BITS 64

/* Asks the kernel: its headers here may know fewer capabilities than it does. */
static bool is_in_bounding_set(unsigned capability)
{
    return prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1;
}

void caps_limit_bounding(uint64_t bounding)
{
    for (unsigned capability = 0; capability < CAPABILITY_BITS; capability++) {
        if (bounding & (1ULL << capability) || !is_in_bounding_set(capability))
            continue;
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            fail(.step = "drop bounding capabilities", .syscall = "prctl", .number = errno,
                 .message = format_text("capability %u", capability));
    }
}

void caps_keep(void)
{
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        fail(.step = "keep capabilities", .syscall = "prctl", .number = errno);
}

static void raise_ambient(uint64_t ambient)
{
    /* EINVAL: a kernel before 4.3, where the set is empty anyway */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        fail(.step = "clear ambient capabilities", .syscall = "prctl", .number = errno);
    for (unsigned capability = 0; capability < CAPABILITY_BITS; capability++) {
        if (!(ambient & (1ULL << capability)))
            continue;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)
            continue;
        /* EPERM: not permitted, or not inheritable. runc's own default configuration asks for that, and runc goes on */
        if (errno == EPERM)
            log_line("ignoring: ambient capability %u: %s", capability, strerror(errno));
        else
            fail(.step = "raise ambient capabilities", .syscall = "prctl", .number = errno,
                 .message = format_text("capability %u", capability));
    }
}

void caps_set(const uint64_t *capabilities)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    for (int word = 0; word < 2; word++) {
        data[word].effective = (uint32_t)(capabilities[CAP_SET_EFFECTIVE] >> (32 * word));
        data[word].permitted = (uint32_t)(capabilities[CAP_SET_PERMITTED] >> (32 * word));
        data[word].inheritable = (uint32_t)(capabilities[CAP_SET_INHERITABLE] >> (32 * word));
    }
    if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        fail(.step = "apply caps", .syscall = "prctl", .number = errno);
    if (syscall(SYS_capset, &header, data) < 0)
        fail(.syscall = "capset", .number = errno, .message = "unable to apply caps",
             .hint = errno == EPERM ? "a capability is asked for that the engine itself lacks" : NULL);
    raise_ambient(capabilities[CAP_SET_AMBIENT]);
}
