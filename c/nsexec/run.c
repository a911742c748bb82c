/*
 * `ctr-init run`: the engine's part of the protocol, played with two saved messages. There is no setup worker and no
 * cgroup, so the process sees the caller's files unless the messages join a mount namespace.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "context.h"
#include "error.h"
#include "message.h"
#include "verbs.h"

#define FLAG_NEW_LISTENER (1U << 3)

struct saved {
    struct message bootstrap;
    struct message settings;
};

static int complain(const char *path, const char *text)
{
    fprintf(stderr, "ctr-init: %s: %s\n", path, text);
    return 1;
}

/* What `run` can't do with this message, or NULL. */
static char *refusal(const struct message *message)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute)) {
        const char *name = attribute.info->name;
        if (attribute.info->kind == KIND_fd)
            return format_text("%s holds a fd, which a file can't carry", name);
        if (attribute.info->type == ATTR_KEEPER && attribute_bool(&attribute))
            return format_text("%s needs STATUS_FD, which a file can't carry", name);
        if (attribute.info->type == ATTR_CONSOLE_ALLOCATE && attribute_bool(&attribute))
            return format_text("%s needs an engine that takes the master", name);
        if (attribute.info->type == ATTR_SECCOMP_FLAGS && attribute_u32(&attribute) & FLAG_NEW_LISTENER)
            return format_text("%s asks for a listener, which needs an agent", name);
    }
    return NULL;
}

static int load(const char *path, const uint8_t *data, size_t size, struct saved *saved)
{
    const struct {
        uint16_t type;
        struct message *message;
    } parts[] = {{MSG_BOOTSTRAP, &saved->bootstrap}, {MSG_SETTINGS, &saved->settings}};
    size_t done = 0;

    for (size_t i = 0; i < 2; i++) {
        const char *wrong =
            done == size ? "missing" : message_check(data + done, size - done, SIZE_MAX, parts[i].message);
        if (!wrong && parts[i].message->type != parts[i].type)
            wrong = "another message stands in its place";
        if (wrong) {
            auto_free char *text = format_text("%s message: %s", message_name(parts[i].type), wrong);
            return complain(path, text);
        }
        auto_free char *refused = refusal(parts[i].message);
        if (refused)
            return complain(path, refused);
        done += parts[i].message->size;
    }
    return done == size ? 0 : complain(path, "bytes after the SETTINGS message");
}

static const char *error_text(const struct message *message, enum attribute_type type)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute))
        if (attribute.info->type == type)
            return attribute_string(&attribute);
    return NULL;
}

static int error_number(const struct message *message)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute))
        if (attribute.info->type == ATTR_ERR_ERRNO)
            return (int)attribute_u32(&attribute);
    return 0;
}

static void print_error(const struct message *message)
{
    struct failure failure = {.step = error_text(message, ATTR_ERR_STEP),
                              .syscall = error_text(message, ATTR_ERR_SYSCALL),
                              .number = error_number(message),
                              .path = error_text(message, ATTR_ERR_PATH),
                              .json_path = error_text(message, ATTR_ERR_JSON_PATH),
                              .message = error_text(message, ATTR_ERR_MESSAGE),
                              .hint = error_text(message, ATTR_ERR_HINT)};
    auto_free char *text = failure_text(&failure);

    fprintf(stderr, "ctr-init: %s\n", text);
    if (failure.hint)
        fprintf(stderr, "hint: %s\n", failure.hint);
}

static pid_t child_pid(const struct message *message)
{
    struct cursor cursor = message_attributes(message);
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute))
        if (attribute.info->type == ATTR_PID)
            return (pid_t)attribute_u32(&attribute);
    return -1;
}

static void send_plain(int socket, uint16_t type)
{
    struct writer writer = message_begin(type);

    (void)message_send(socket, &writer); /* a peer that is gone shows at the next receive */
}

/* The engine's side until execve closed the socket. The container process's pid; *failed when there was an ERROR. */
static pid_t play_engine(int socket, const struct saved *saved, bool *failed)
{
    struct message message;
    pid_t pid = -1;

    (void)message_send_bytes(socket, saved->bootstrap.data, saved->bootstrap.size, NULL, 0);
    while (message_receive(socket, &message)) {
        if (message.type == MSG_ERROR) {
            *failed = true;
            print_error(&message);
        } else if (message.type == MSG_CHILD) {
            pid = child_pid(&message);
            send_plain(socket, MSG_GO);
        } else if (message.type == MSG_NAMESPACES_READY) {
            (void)message_send_bytes(socket, saved->settings.data, saved->settings.size, NULL, 0);
        }
        message_release(&message);
    }
    return pid;
}

int verb_run(const char *path)
{
    struct saved saved;
    size_t size;
    int ends[2], status = 0;
    bool failed = false;
    auto_free uint8_t *data = read_whole_file(path, &size);

    if (!data || load(path, data, size, &saved) != 0)
        return 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return complain("socketpair", strerror(errno));
    signal(SIGCHLD, SIG_DFL);
    pid_t stage_0 = fork();
    if (stage_0 < 0)
        return complain("fork", strerror(errno));
    if (stage_0 == 0) {
        close(ends[0]);
        prelude_run(ends[1], 3);
    }
    close(ends[1]);
    pid_t pid = play_engine(ends[0], &saved, &failed);
    close(ends[0]);
    while (waitpid(stage_0, NULL, 0) < 0 && errno == EINTR)
        ;
    if (pid > 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    if (failed || pid < 0)
        return 1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
