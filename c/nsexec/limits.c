#include "limits.h"

#include <errno.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#include "error.h"
#include "kernel.h"

/* sched_attr as the kernel first had it, in 3.14 */
#define SCHED_ATTR_SIZE_MIN 48

static const char *const rlimit_names[] = {
    "RLIMIT_CPU",      "RLIMIT_FSIZE",  "RLIMIT_DATA",    "RLIMIT_STACK",  "RLIMIT_CORE",  "RLIMIT_RSS",
    "RLIMIT_NPROC",    "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS",     "RLIMIT_LOCKS", "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE", "RLIMIT_NICE",   "RLIMIT_RTPRIO",  "RLIMIT_RTTIME",
};

void set_personality(const struct settings *settings)
{
    if (settings->set_personality && personality(settings->personality) < 0)
        fail(.step = "set personality", .syscall = "personality", .number = errno,
             .message = format_text("personality %#llx", (unsigned long long)settings->personality));
}

void set_scheduler(const struct settings *settings)
{
    uint32_t size;

    if (!settings->scheduler.data)
        return;
    /* the kernel reads as many bytes as the struct says that it has */
    if (settings->scheduler.size < SCHED_ATTR_SIZE_MIN)
        fail(.kind = "ProtocolError", .step = "set scheduler", .message = "SCHEDULER of a wrong size");
    memcpy(&size, settings->scheduler.data, sizeof(size));
    if (size > settings->scheduler.size)
        fail(.kind = "ProtocolError", .step = "set scheduler", .message = "SCHEDULER of a wrong size");
    if (syscall(SYS_sched_setattr, 0, settings->scheduler.data, 0) < 0)
        fail(.step = "set scheduler", .syscall = "sched_setattr", .number = errno, .json_path = ".process.scheduler",
             .hint = errno == EPERM
                         ? "a right is missing; or the cgroup has not all CPUs, which SCHED_DEADLINE asks for"
                         : NULL);
}

void set_io_priority(const struct settings *settings)
{
    if (settings->io_priority >= 0 && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)settings->io_priority) < 0)
        fail(.step = "set I/O priority", .syscall = "ioprio_set", .number = errno, .json_path = ".process.ioPriority");
}

void set_memory_policy(const struct settings *settings)
{
    const struct blob *policy = &settings->memory_policy;
    uint32_t mode, flags;

    if (!policy->data)
        return;
    if (policy->size < 2 * sizeof(uint32_t) || policy->size % sizeof(uint64_t))
        fail(.kind = "ProtocolError", .step = "set memory policy", .message = "MEMORY_POLICY of a wrong size");
    memcpy(&mode, policy->data, sizeof(mode));
    memcpy(&flags, policy->data + sizeof(mode), sizeof(flags));
    size_t mask_size = policy->size - 2 * sizeof(uint32_t);
    const uint8_t *mask = mask_size ? policy->data + 2 * sizeof(uint32_t) : NULL;
    /* the kernel takes one bit off the count that it is given */
    size_t bits = mask_size ? mask_size * 8 + 1 : 0;
    if (syscall(SYS_set_mempolicy, (int)(mode | flags), mask, bits) < 0)
        fail(.step = "set memory policy", .syscall = "set_mempolicy", .number = errno,
             .json_path = ".linux.memoryPolicy");
}

static char *rlimit_name(uint32_t resource)
{
    if (resource < sizeof(rlimit_names) / sizeof(rlimit_names[0]))
        return format_text("%s", rlimit_names[resource]);
    return format_text("%u", resource);
}

void set_rlimits(const struct settings *settings)
{
    for (size_t i = 0; i < settings->rlimit_count; i++) {
        const struct rlimit_setting *setting = &settings->rlimits[i];
        const uint64_t values[2] = {setting->soft, setting->hard};
        if (syscall(SYS_prlimit64, 0, setting->resource, values, NULL) < 0)
            fail(.syscall = "prlimit", .number = errno,
                 .message = format_text("error setting rlimit type %u (%s soft %llu hard %llu)", setting->resource,
                                        rlimit_name(setting->resource), (unsigned long long)setting->soft,
                                        (unsigned long long)setting->hard),
                 .hint = errno == EPERM ? "raising a hard limit needs CAP_SYS_RESOURCE" : NULL);
    }
}

/*
 * What the caller was bound to is not meant for the container. The kernel cuts the mask to the cgroup's CPUs; since 6.2
 * (commit da019032819a) entering the cgroup alone does not widen it any more.
 */
void reset_affinity(void)
{
    uint8_t all[1024];

    memset(all, 0xff, sizeof(all));
    if (syscall(SYS_sched_setaffinity, 0, sizeof(all), all) < 0)
        log_line("ignoring: reset CPU affinity: %s", strerror(errno));
}

void set_affinity(const struct cpu_mask *mask)
{
    if (mask->size && syscall(SYS_sched_setaffinity, 0, mask->size, mask->bits) < 0)
        fail(.step = "set CPU affinity", .syscall = "sched_setaffinity", .number = errno);
}
