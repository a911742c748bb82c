#include "settings.h"

#include <string.h>

#include "error.h"

static _Noreturn void refuse(const char *message)
{
    fail(.kind = "ProtocolError", .step = "read settings", .message = message);
}

static struct blob read_blob(const struct attribute *attribute)
{
    struct blob blob = {.data = allocate(attribute->size), .size = attribute->size};

    memcpy(blob.data, attribute->data, attribute->size);
    return blob;
}

/* Attributes of this type below the cursor; sizes the arrays, so that they are filled without growing. */
static size_t count_attributes(struct cursor cursor, enum attribute_type type)
{
    struct attribute attribute;
    size_t count = 0;

    while (attribute_next(&cursor, &attribute))
        count += attribute.info->type == type;
    return count;
}

static struct strings make_strings(struct cursor cursor, enum attribute_type type)
{
    return (struct strings){.items = allocate((count_attributes(cursor, type) + 1) * sizeof(char *))};
}

static void add_string(struct strings *strings, const struct attribute *attribute)
{
    strings->items[strings->count++] = attribute_string(attribute);
}

static struct hook read_hook(const struct attribute *nest)
{
    struct cursor cursor = nested_attributes(nest);
    struct hook hook = {.arguments = make_strings(cursor, ATTR_HOOK_ARG),
                        .environment = make_strings(cursor, ATTR_HOOK_ENV),
                        .timeout = -1};
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute)) {
        switch (attribute.info->type) {
        case ATTR_HOOK_PATH:
            hook.path = attribute_string(&attribute);
            break;
        case ATTR_HOOK_ARG:
            add_string(&hook.arguments, &attribute);
            break;
        case ATTR_HOOK_ENV:
            add_string(&hook.environment, &attribute);
            break;
        case ATTR_HOOK_TIMEOUT:
            hook.timeout = attribute_u32(&attribute);
            break;
        default:
            refuse(format_text("%s does not belong in HOOK", attribute.info->name));
        }
    }
    if (!hook.path || hook.path[0] != '/')
        refuse("hook without an absolute path");
    return hook;
}

static void add_rlimit(struct settings *settings, const struct attribute *attribute)
{
    if (attribute->size != sizeof(struct rlimit_setting))
        refuse("RLIMIT of a wrong size");
    memcpy(&settings->rlimits[settings->rlimit_count++], attribute->data, sizeof(struct rlimit_setting));
}

static void read_groups(struct settings *settings, const struct attribute *attribute)
{
    settings->set_groups = true;
    settings->group_count = attribute->size / sizeof(uint32_t);
    settings->groups = allocate(attribute->size);
    memcpy(settings->groups, attribute->data, attribute->size);
}

static void read_console_size(struct settings *settings, const struct attribute *attribute)
{
    if (attribute->size != 2 * sizeof(uint32_t))
        refuse("CONSOLE_SIZE of a wrong size");
    settings->console_sized = true;
    memcpy(&settings->console_width, attribute->data, sizeof(uint32_t));
    memcpy(&settings->console_height, attribute->data + sizeof(uint32_t), sizeof(uint32_t));
}

static void set_capability(struct settings *settings, enum capability_set set, const struct attribute *attribute)
{
    settings->set_capabilities = true;
    settings->capabilities[set] = attribute_u64(attribute);
}

/* False when the attribute is none of those about what the process is allowed. */
static bool read_privilege(const struct attribute *attribute, struct settings *settings)
{
    switch (attribute->info->type) {
    case ATTR_UID:
        settings->uid = attribute_u32(attribute);
        return true;
    case ATTR_GID:
        settings->gid = attribute_u32(attribute);
        return true;
    case ATTR_GROUPS:
        read_groups(settings, attribute);
        return true;
    case ATTR_CAP_BOUNDING:
        set_capability(settings, CAP_SET_BOUNDING, attribute);
        return true;
    case ATTR_CAP_EFFECTIVE:
        set_capability(settings, CAP_SET_EFFECTIVE, attribute);
        return true;
    case ATTR_CAP_INHERITABLE:
        set_capability(settings, CAP_SET_INHERITABLE, attribute);
        return true;
    case ATTR_CAP_PERMITTED:
        set_capability(settings, CAP_SET_PERMITTED, attribute);
        return true;
    case ATTR_CAP_AMBIENT:
        set_capability(settings, CAP_SET_AMBIENT, attribute);
        return true;
    case ATTR_NO_NEW_PRIVS:
        settings->no_new_privs = attribute_bool(attribute);
        return true;
    case ATTR_SECCOMP_BPF:
        settings->seccomp = read_blob(attribute);
        return true;
    case ATTR_SECCOMP_FLAGS:
        settings->seccomp_flags = attribute_u32(attribute);
        return true;
    case ATTR_APPARMOR:
        settings->apparmor = attribute_string(attribute);
        return true;
    case ATTR_SELINUX:
        settings->selinux = attribute_string(attribute);
        return true;
    default:
        return false;
    }
}

/* False when the attribute is none of those about how the process is run by the kernel. */
static bool read_resource(const struct attribute *attribute, struct settings *settings)
{
    switch (attribute->info->type) {
    case ATTR_UMASK:
        settings->umask = attribute_u32(attribute);
        return true;
    case ATTR_RLIMIT:
        add_rlimit(settings, attribute);
        return true;
    case ATTR_PERSONALITY:
        settings->set_personality = true;
        settings->personality = attribute_u64(attribute);
        return true;
    case ATTR_KEYRING:
        settings->keyring = attribute_string(attribute);
        return true;
    case ATTR_KEYRING_LABEL:
        settings->keyring_label = attribute_string(attribute);
        return true;
    case ATTR_SCHEDULER:
        settings->scheduler = read_blob(attribute);
        return true;
    case ATTR_IO_PRIORITY:
        settings->io_priority = attribute_u32(attribute);
        return true;
    case ATTR_CPU_AFFINITY:
        settings->affinity.bits = read_blob(attribute).data;
        settings->affinity.size = attribute->size;
        return true;
    case ATTR_MEMORY_POLICY:
        settings->memory_policy = read_blob(attribute);
        return true;
    case ATTR_PARENT_DEATH_SIGNAL:
        settings->parent_death_signal = attribute_u32(attribute);
        return true;
    default:
        return false;
    }
}

/* False when the attribute is none of those about what is executed, where, and with which fds. */
static bool read_program(const struct attribute *attribute, struct message *message, struct settings *settings)
{
    switch (attribute->info->type) {
    case ATTR_ARG:
        add_string(&settings->arguments, attribute);
        return true;
    case ATTR_ENV:
        add_string(&settings->environment, attribute);
        return true;
    case ATTR_CWD:
        settings->cwd = attribute_string(attribute);
        return true;
    case ATTR_CONSOLE_SLAVE_FD:
        settings->console_slave = attribute_fd(attribute, message);
        return true;
    case ATTR_CONSOLE_ALLOCATE:
        settings->console_allocate = attribute_bool(attribute);
        return true;
    case ATTR_CONSOLE_SIZE:
        read_console_size(settings, attribute);
        return true;
    case ATTR_PRESERVE_FDS:
        settings->preserve_fds = attribute_u32(attribute);
        return true;
    case ATTR_FIFO_FD:
        settings->fifo = attribute_fd(attribute, message);
        return true;
    case ATTR_ROOT_FD:
        settings->root = attribute_fd(attribute, message);
        return true;
    case ATTR_HOOK:
        settings->hooks[settings->hook_count++] = read_hook(attribute);
        return true;
    case ATTR_HOOK_STATE:
        settings->hook_state = read_blob(attribute);
        return true;
    case ATTR_NEW_SESSION:
        settings->new_session = attribute_bool(attribute);
        return true;
    default:
        return false;
    }
}

static void check_settings(const struct settings *settings)
{
    if (settings->arguments.count == 0)
        refuse("no ARG");
    if (settings->cwd && settings->cwd[0] != '/')
        refuse(format_text("CWD %s is not absolute", quoted(settings->cwd)));
    if (settings->console_slave >= 0 && settings->console_allocate)
        refuse("both CONSOLE_SLAVE_FD and CONSOLE_ALLOCATE");
}

void settings_read(struct message *message, struct settings *settings)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    *settings = (struct settings){
        .arguments = make_strings(cursor, ATTR_ARG),
        .environment = make_strings(cursor, ATTR_ENV),
        .uid = -1,
        .gid = -1,
        .umask = -1,
        .rlimits = allocate(count_attributes(cursor, ATTR_RLIMIT) * sizeof(struct rlimit_setting)),
        .io_priority = -1,
        .console_slave = -1,
        .fifo = -1,
        .root = -1,
        .hooks = allocate(count_attributes(cursor, ATTR_HOOK) * sizeof(struct hook)),
    };
    while (attribute_next(&cursor, &attribute))
        if (!read_privilege(&attribute, settings) && !read_resource(&attribute, settings) &&
            !read_program(&attribute, message, settings))
            refuse(format_text("%s does not belong in SETTINGS", attribute.info->name));
    check_settings(settings);
}
