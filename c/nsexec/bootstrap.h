/* What the BOOTSTRAP message says, as a struct. */

#ifndef CTR_BOOTSTRAP_H
#define CTR_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"

#define NAMESPACE_PATHS_MAX 16

struct namespace_path {
    uint64_t flag; /* CLONE_NEW* */
    const char *type;
    char *path;
    int fd;
    bool joined;
};

struct cpu_mask {
    uint8_t *bits;
    size_t size;
};

struct bootstrap {
    uint64_t clone_flags;
    struct namespace_path paths[NAMESPACE_PATHS_MAX];
    size_t path_count;
    int pidfd;
    uint64_t pidfd_flags;
    char *uid_map;
    char *gid_map;
    char *newuidmap;
    char *newgidmap;
    bool setgroups_deny;
    bool rootless_euid;
    bool become_root;
    bool new_session;
    bool keeper;
    char *oom_score_adj;
    char *time_offsets;
    struct cpu_mask initial_affinity;
    int cgroup;
    bool trace;
    int log;
    int status;
};

/* Reads the message and takes its fds; ends the process on an attribute that does not belong there. */
void bootstrap_read(struct message *message, struct bootstrap *bootstrap);

/* Whether it is the container process that becomes root of the user namespace, or stage 0 before that is there. */
bool bootstrap_becomes_root_late(const struct bootstrap *bootstrap);

/* Which kinds of new namespaces the container process makes itself, after its id maps and cgroups are right. */
uint64_t bootstrap_late_namespaces(const struct bootstrap *bootstrap);

#endif
