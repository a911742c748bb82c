#include "bootstrap.h"

#include <sched.h>
#include <string.h>

#include "error.h"
#include "kernel.h"

#define ALL_NAMESPACES                                                                                                 \
    (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWTIME | CLONE_NEWUSER |      \
     CLONE_NEWUTS)

/* The names of config.json, then those of /proc/PID/ns where they differ. */
static const struct {
    const char *type;
    uint64_t flag;
} namespace_types[] = {
    {"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC},   {"mount", CLONE_NEWNS},  {"network", CLONE_NEWNET},
    {"pid", CLONE_NEWPID},       {"time", CLONE_NEWTIME}, {"user", CLONE_NEWUSER}, {"uts", CLONE_NEWUTS},
    {"mnt", CLONE_NEWNS},        {"net", CLONE_NEWNET},
};

static void add_path(struct bootstrap *bootstrap, char *text)
{
    char *colon = strchr(text, ':');

    if (!colon || colon[1] != '/')
        fail(.kind = "ProtocolError", .step = "read bootstrap",
             .message = format_text("%s is not type:path of a namespace", quoted(text)));
    if (bootstrap->path_count == NAMESPACE_PATHS_MAX)
        fail(.kind = "ProtocolError", .step = "read bootstrap", .message = "too many namespaces to join");
    *colon = '\0';
    for (size_t i = 0; i < sizeof(namespace_types) / sizeof(namespace_types[0]); i++) {
        if (strcmp(namespace_types[i].type, text) != 0)
            continue;
        bootstrap->paths[bootstrap->path_count++] = (struct namespace_path){
            .flag = namespace_types[i].flag, .type = namespace_types[i].type, .path = colon + 1, .fd = -1};
        return;
    }
    fail(.kind = "ProtocolError", .step = "read bootstrap",
         .message = format_text("unknown namespace type %s", quoted(text)));
}

static struct cpu_mask read_mask(const struct attribute *attribute)
{
    struct cpu_mask mask = {.bits = allocate(attribute->size), .size = attribute->size};

    memcpy(mask.bits, attribute->data, attribute->size);
    return mask;
}

static void check_bootstrap(const struct bootstrap *bootstrap)
{
    const char *wrong = NULL;

    if ((bootstrap->clone_flags | bootstrap->pidfd_flags) & ~(uint64_t)ALL_NAMESPACES)
        wrong = "flags that are no namespaces";
    else if (bootstrap->pidfd_flags && bootstrap->pidfd < 0)
        wrong = "NS_PIDFD_FLAGS without NS_PIDFD_FD";
    else if ((bootstrap->uid_map || bootstrap->gid_map) && !(bootstrap->clone_flags & CLONE_NEWUSER))
        wrong = "id maps without a new user namespace";
    else if (bootstrap->time_offsets && !(bootstrap->clone_flags & CLONE_NEWTIME))
        wrong = "time offsets without a new time namespace";
    else if (bootstrap->keeper && bootstrap->status < 0)
        wrong = "KEEPER without STATUS_FD";
    if (wrong)
        fail(.kind = "ProtocolError", .step = "read bootstrap", .message = wrong);
}

void bootstrap_read(struct message *message, struct bootstrap *bootstrap)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    *bootstrap = (struct bootstrap){.pidfd = -1, .cgroup = -1, .log = -1, .status = -1};
    while (attribute_next(&cursor, &attribute)) {
        switch (attribute.info->type) {
        case ATTR_CLONE_FLAGS:
            bootstrap->clone_flags = attribute_u64(&attribute);
            break;
        case ATTR_NS_PATH:
            add_path(bootstrap, attribute_string(&attribute));
            break;
        case ATTR_NS_PIDFD_FD:
            bootstrap->pidfd = attribute_fd(&attribute, message);
            break;
        case ATTR_NS_PIDFD_FLAGS:
            bootstrap->pidfd_flags = attribute_u64(&attribute);
            break;
        case ATTR_UIDMAP:
            bootstrap->uid_map = attribute_string(&attribute);
            break;
        case ATTR_GIDMAP:
            bootstrap->gid_map = attribute_string(&attribute);
            break;
        case ATTR_NEWUIDMAP:
            bootstrap->newuidmap = attribute_string(&attribute);
            break;
        case ATTR_NEWGIDMAP:
            bootstrap->newgidmap = attribute_string(&attribute);
            break;
        case ATTR_SETGROUPS_DENY:
            bootstrap->setgroups_deny = attribute_bool(&attribute);
            break;
        case ATTR_ROOTLESS_EUID:
            bootstrap->rootless_euid = attribute_bool(&attribute);
            break;
        case ATTR_OOM_SCORE_ADJ:
            bootstrap->oom_score_adj = attribute_string(&attribute);
            break;
        case ATTR_TIME_OFFSETS:
            bootstrap->time_offsets = attribute_string(&attribute);
            break;
        case ATTR_CGROUP_FD:
            bootstrap->cgroup = attribute_fd(&attribute, message);
            break;
        case ATTR_LOG_FD:
            bootstrap->log = attribute_fd(&attribute, message);
            break;
        case ATTR_TRACE:
            bootstrap->trace = attribute_bool(&attribute);
            break;
        case ATTR_KEEPER:
            bootstrap->keeper = attribute_bool(&attribute);
            break;
        case ATTR_STATUS_FD:
            bootstrap->status = attribute_fd(&attribute, message);
            break;
        case ATTR_BECOME_ROOT:
            bootstrap->become_root = attribute_bool(&attribute);
            break;
        case ATTR_NEW_SESSION:
            bootstrap->new_session = attribute_bool(&attribute);
            break;
        case ATTR_CPU_AFFINITY_INITIAL:
            bootstrap->initial_affinity = read_mask(&attribute);
            break;
        default:
            fail(.kind = "ProtocolError", .step = "read bootstrap",
                 .message = format_text("%s does not belong in BOOTSTRAP", attribute.info->name));
        }
    }
    check_bootstrap(bootstrap);
}

/* Maps are for a process that is there; and a file of /proc/self has to be opened with the ids of before. */
bool bootstrap_becomes_root_late(const struct bootstrap *bootstrap)
{
    return bootstrap->clone_flags & CLONE_NEWUSER || (bootstrap->become_root && bootstrap->time_offsets);
}

uint64_t bootstrap_late_namespaces(const struct bootstrap *bootstrap)
{
    return CLONE_NEWCGROUP | CLONE_NEWTIME | (bootstrap_becomes_root_late(bootstrap) ? CLONE_NEWIPC : 0);
}
