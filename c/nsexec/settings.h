/* What the SETTINGS message says, as a struct. */

#ifndef CTR_SETTINGS_H
#define CTR_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bootstrap.h"
#include "message.h"

enum capability_set { CAP_SET_BOUNDING, CAP_SET_EFFECTIVE, CAP_SET_INHERITABLE, CAP_SET_PERMITTED, CAP_SET_AMBIENT };

/* Texts in order, NULL behind the last. */
struct strings {
    char **items;
    size_t count;
};

struct rlimit_setting {
    uint32_t resource;
    uint32_t zero;
    uint64_t soft;
    uint64_t hard;
};

struct hook {
    char *path;
    struct strings arguments;
    struct strings environment;
    int64_t timeout; /* seconds, -1: none */
};

/* Bytes as they came. */
struct blob {
    uint8_t *data;
    size_t size;
};

/* Optional numbers are -1 when they are absent. */
struct settings {
    struct strings arguments;
    struct strings environment;
    char *cwd;
    int64_t uid;
    int64_t gid;
    bool set_groups;
    uint32_t *groups;
    size_t group_count;
    int64_t umask;
    bool set_capabilities;
    uint64_t capabilities[5]; /* by enum capability_set */
    struct rlimit_setting *rlimits;
    size_t rlimit_count;
    bool no_new_privs;
    struct blob seccomp; /* struct sock_filter[] */
    uint32_t seccomp_flags;
    char *apparmor;
    char *selinux;
    bool set_personality;
    uint64_t personality;
    char *keyring;
    char *keyring_label;
    struct blob scheduler; /* struct sched_attr */
    int64_t io_priority;
    struct cpu_mask affinity;
    struct blob memory_policy; /* u32 mode, u32 flags, u64 words */
    int console_slave;
    bool console_allocate;
    bool console_sized;
    uint32_t console_width;
    uint32_t console_height;
    uint32_t preserve_fds;
    int fifo;
    int root;
    struct hook *hooks;
    size_t hook_count;
    struct blob hook_state;
    bool new_session;
    uint32_t parent_death_signal;
};

/* Reads the message and takes its fds; ends the process on an attribute that does not belong there. */
void settings_read(struct message *message, struct settings *settings);

#endif
