#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"
#include "../nsexec/kernel.h"
#include "attend.h"
#include "direct.h"
#include "output.h"
#include "report.h"
#include "spawn.h"
#include "wire.h"

#define PROTOCOL_VERSION 1

/*
 * For the answer to the hello, in milliseconds: the supervisor's loop never blocks, so one that is silent is stopped or
 * stuck. Only what follows has no limit, since hooks may be slow. The command is held back until then: one that lies
 * unread in the socket might be carried out after the direct way has done so.
 */
#define HELLO_LIMIT 2000

/* For the end of a first stage that has nothing more to do, in milliseconds. */
#define STAGE0_LIMIT 1000

#define FAILURE 1
/* ctr_supervisor/cli/main.py: as a shell shows the death by SIGPIPE */
#define BROKEN_PIPE 141
#define PRESERVE_MAX (1 << 20)

/* What holds for the whole dialogue. */
struct session {
    const struct options *options;
    const char *path;
    int connection; /* -1 when it is closed */
    bool answered;  /* something came after the command: the direct way is closed */
    bool ended;     /* `status` holds */
    int status;
    pid_t stage0; /* the last child that was spawned, until it is reaped; or 0 */
};

static void close_session(struct session *session)
{
    close_fd(&session->connection);
}

static void end(struct session *session, int status)
{
    session->ended = true;
    session->status = status;
}

static const char *reason(enum receipt receipt)
{
    switch (receipt) {
    case CLOSED:
        return "it closed the connection";
    case TOO_LATE:
        return "it does not answer";
    default:
        return "it sent something that is no message";
    }
}

/*
 * The first stage of ctr-init ends by itself, at the latest with its socket, and leaves the container process as our
 * child. The limit is for one that a debugger holds.
 */
static void reap_stage0(struct session *session)
{
    auto_fd pidfd = session->stage0 > 0 ? (int)syscall(SYS_pidfd_open, session->stage0, 0) : -1;
    struct pollfd end_of_it = {.fd = pidfd, .events = POLLIN};

    if (pidfd >= 0)
        (void)poll(&end_of_it, 1, STAGE0_LIMIT);
    if (session->stage0 > 0)
        (void)waitpid(session->stage0, NULL, WNOHANG);
    session->stage0 = 0;
}

/* An error of the client's own, or one that it can't get the command out of any more. */
static void vanished(struct session *session, const char *why)
{
    report_error(session->options, "supervisor at %s: %s before the command had ended", session->path, why);
    end(session, FAILURE);
}

static void start_message(struct buffer *message, const char *type, uint32_t fields)
{
    pack_map(message, 1 + fields);
    pack_text(message, "type");
    pack_text(message, type);
}

static void pack_field_number(struct buffer *message, const char *name, int64_t number)
{
    pack_text(message, name);
    pack_number(message, number);
}

static void pack_field_text(struct buffer *message, const char *name, const char *text)
{
    pack_text(message, name);
    pack_text(message, text);
}

static void pack_field_texts(struct buffer *message, const char *name, char **texts)
{
    uint32_t count = 0;

    while (texts[count])
        count++;
    pack_text(message, name);
    pack_array(message, count);
    for (uint32_t i = 0; i < count; i++)
        pack_text(message, texts[i]);
}

static bool send_hello(int connection)
{
    auto_buffer message = {0};

    start_message(&message, "hello", 2);
    pack_field_number(&message, "version", PROTOCOL_VERSION);
    pack_field_text(&message, "client", "ctrun " CTR_VERSION);
    return wire_send(connection, &message, NULL, 0);
}

/* Why there will be no dialogue, or NULL after a connection that is greeted and ready. */
static const char *greet(struct session *session)
{
    auto_packet answer = {0};
    int64_t version;

    session->connection = wire_connect(session->path);
    if (session->connection < 0 || !send_hello(session->connection))
        return error_text(errno);
    enum receipt receipt = wire_receive(session->connection, HELLO_LIMIT, &answer);
    if (receipt != RECEIVED)
        return reason(receipt);
    if (!packet_is(&answer, "hello") || !packet_number(&answer, "version", 0, INT_MAX, &version))
        return "it does not greet back";
    return version == PROTOCOL_VERSION ? NULL : "it speaks another version";
}

static mode_t current_umask(void)
{
    mode_t mask = umask(0);

    umask(mask);
    return mask;
}

static bool send_command(int connection, char **argv)
{
    static const char *const names[] = {"stdin", "stdout", "stderr", "cwd"};
    auto_buffer message = {0};
    auto_fd directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const int fds[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, directory};
    const uint32_t count = sizeof(fds) / sizeof(*fds);

    if (directory < 0)
        return false;
    start_message(&message, "command", 4);
    pack_field_texts(&message, "argv", argv);
    pack_field_texts(&message, "env", environ);
    pack_field_number(&message, "umask", current_umask());
    pack_text(&message, "fds");
    pack_array(&message, count);
    for (uint32_t i = 0; i < count; i++)
        pack_text(&message, names[i]);
    return wire_send(connection, &message, fds, count);
}

static void handle_output(struct session *session, const struct packet *packet)
{
    struct span data;
    int64_t fd;

    if (!packet_number(packet, "fd", STDOUT_FILENO, STDERR_FILENO, &fd) || !packet_bytes(packet, "data", &data)) {
        vanished(session, reason(INVALID));
        return;
    }
    /* nobody can be told that standard error takes nothing */
    if (output_write((int)fd, data.start, data.size) || fd == STDERR_FILENO)
        return;
    if (errno != EPIPE)
        report_error(session->options, "write /dev/stdout: %s", error_text(errno));
    end(session, errno == EPIPE ? BROKEN_PIPE : FAILURE);
}

static void send_failure(const struct session *session, const struct spawn_failure *failure)
{
    auto_buffer message = {0};
    const char *name = *failure->syscall ? "syscall" : NULL;

    start_message(&message, "error", 1);
    pack_text(&message, "error");
    pack_map(&message, (uint32_t)(2 + (name ? 1 : 0) + (failure->number ? 1 : 0)));
    pack_field_text(&message, "kind", failure->kind);
    pack_field_text(&message, "message", failure->message);
    if (name)
        pack_field_text(&message, name, failure->syscall);
    if (failure->number)
        pack_field_number(&message, "errno", failure->number);
    (void)wire_send(session->connection, &message, NULL, 0);
}

static void send_number(const struct session *session, const char *type, const char *name, int number)
{
    auto_buffer message = {0};

    start_message(&message, type, 1);
    pack_field_number(&message, name, number);
    /* a peer that is gone is noticed by the receiver of what comes next */
    (void)wire_send(session->connection, &message, NULL, 0);
}

static void handle_spawn(struct session *session, struct packet *packet)
{
    auto_fd executable = packet_take_fd(packet, "executable"), socket = packet_take_fd(packet, "socket");
    auto_free char **argv = packet_texts(packet, "argv"), **env = packet_texts(packet, "env");
    struct spawn_failure failure = {.kind = "ProtocolError", .syscall = "", .message = "spawn is not complete"};
    int64_t preserve_fds;
    pid_t pid = -1;

    if (executable >= 0 && socket >= 0 && argv && env &&
        packet_number(packet, "preserve_fds", 0, PRESERVE_MAX, &preserve_fds)) {
        struct spawn spawn = {executable, socket, argv, env, (int)preserve_fds};
        if (!packet_true(packet, "foreground") || attend_prepare(packet_true(packet, "subreaper")))
            pid = spawn_child(&spawn, &failure);
        else
            failure = (struct spawn_failure){"InitError", "signalfd", errno, "staying in the foreground"};
    }
    if (pid < 0) {
        send_failure(session, &failure);
        return;
    }
    reap_stage0(session);
    session->stage0 = pid;
    send_number(session, "spawned", "pid", pid);
}

static void handle_reap(struct session *session, const struct packet *packet)
{
    int64_t pid;

    if (!packet_number(packet, "pid", 1, INT_MAX, &pid)) {
        vanished(session, reason(INVALID));
        return;
    }
    if (pid == session->stage0)
        reap_stage0(session);
    else
        (void)waitpid((pid_t)pid, NULL, WNOHANG);
}

/* The structure of ctr_common/errors.py in an `error`; false when there is none. It owns nothing. */
static bool open_error(const struct packet *packet, struct packet *error)
{
    *error = (struct packet){0};
    return unpack_find(packet->body, "error", &error->body) && unpack_valid(error->body);
}

static void handle_error(struct session *session, const struct packet *packet)
{
    struct packet error;

    if (!open_error(packet, &error)) {
        vanished(session, reason(INVALID));
        return;
    }
    auto_free char *step = packet_text(&error, "step"), *message = packet_text(&error, "message");
    auto_free char *syscall_name = packet_text(&error, "syscall"), *path = packet_text(&error, "path");
    const char *what = message && *message ? message : syscall_name ? syscall_name : "an error without a message";
    bool named = path && *path && !strstr(what, path);
    int64_t number;
    bool numbered = packet_number(&error, "errno", 1, INT_MAX, &number);
    report_error(session->options, "supervisor at %s: %s%s%s%s%s%s%s", session->path, step ? step : "",
                 step ? ": " : "", what, named ? " " : "", named ? path : "", numbered ? ": " : "",
                 numbered ? error_text((int)number) : "");
    end(session, FAILURE);
}

/* Messages that may come at any time after the command. */
static bool handle_common(struct session *session, struct packet *packet)
{
    int64_t status;

    if (packet_is(packet, "output"))
        handle_output(session, packet);
    else if (packet_is(packet, "reap"))
        handle_reap(session, packet);
    else if (packet_is(packet, "exit") && packet_number(packet, "status", 0, 255, &status))
        end(session, (int)status);
    else
        return false;
    return true;
}

/* While the process runs: whatever is wrong with the connection, the process's end matters more. */
static bool handle_while_attending(void *context)
{
    struct session *session = context;
    auto_packet packet = {0};

    if (wire_receive(session->connection, -1, &packet) == RECEIVED &&
        (packet_is(&packet, "output") || packet_is(&packet, "reap")) && handle_common(session, &packet))
        return true;
    close_session(session);
    return false;
}

/* Until `exit`, after `ended` or `finish`; false when that does not come. */
static bool await_exit(struct session *session)
{
    session->ended = false;
    while (session->connection >= 0 && !session->ended) {
        auto_packet packet = {0};
        if (wire_receive(session->connection, -1, &packet) != RECEIVED || !handle_common(session, &packet))
            close_session(session);
    }
    return session->ended;
}

/* Until the answer to `finish`; false when none comes. A container that somebody else has deleted is no failure. */
static bool await_finished(struct session *session)
{
    session->ended = false;
    while (!session->ended) {
        auto_packet packet = {0};
        struct packet error;
        if (wire_receive(session->connection, -1, &packet) != RECEIVED)
            return false;
        if (!packet_is(&packet, "error")) {
            if (!handle_common(session, &packet))
                return false;
            continue;
        }
        auto_free char *kind = open_error(&packet, &error) ? packet_text(&error, "kind") : NULL;
        if (kind && strcmp(kind, "ContainerNotFound") == 0)
            end(session, 0);
        else
            handle_error(session, &packet);
    }
    return true;
}

static bool finish_by_supervisor(struct session *session, const char *root, const char *id, int pid)
{
    auto_buffer message = {0};
    const char *trouble;

    close_session(session);
    trouble = greet(session);
    if (trouble) {
        report_debug(session->options, "supervisor at %s: %s, deleting the container without it", session->path,
                     trouble);
        return false;
    }
    start_message(&message, "finish", 3);
    pack_field_text(&message, "id", id);
    pack_field_text(&message, "root", root);
    pack_field_number(&message, "pid", pid);
    return wire_send(session->connection, &message, NULL, 0) && await_finished(session);
}

/* The container has to go, and whoever made it has gone: another supervisor, or nobody but us, sees to that. */
static void finish(struct session *session, const char *root, const char *id, int pid, int status)
{
    int deleted = 0;

    if (finish_by_supervisor(session, root, id, pid))
        deleted = session->status;
    else if (direct_owns(root, id, pid))
        deleted = direct_delete(session->options, root, id);
    end(session, deleted == 0 ? status : deleted);
}

static void handle_attend(struct session *session, struct packet *packet)
{
    auto_free char *id = packet_text(packet, "id"), *root = packet_text(packet, "root");
    auto_fd console = packet_take_fd(packet, "console");
    bool finishes = packet_true(packet, "finish");
    int64_t pid;

    if (!id || !root || !packet_number(packet, "pid", 1, INT_MAX, &pid)) {
        vanished(session, reason(INVALID));
        return;
    }
    int status = attend((pid_t)pid, take_fd(&console), session->connection, handle_while_attending, session);
    if (status < 0) {
        report_error(session->options, "waiting for the container process %d: %s", (int)pid, error_text(errno));
        status = FAILURE;
    }
    if (session->connection >= 0)
        send_number(session, "ended", "status", status);
    if (await_exit(session))
        return;
    if (finishes)
        finish(session, root, id, (int)pid, status);
    else
        end(session, status);
}

/* Handles one message; false when the supervisor can't serve the command and nothing has happened. */
static bool handle(struct session *session, struct packet *packet)
{
    if (!session->answered && (packet_is(packet, "refuse") || packet_is(packet, "error"))) {
        auto_free char *why = packet_text(packet, "reason");
        report_debug(session->options, "supervisor at %s: %s, going the direct way", session->path,
                     why ? why : "it does not take the command");
        return false;
    }
    session->answered = true;
    if (packet_is(packet, "spawn"))
        handle_spawn(session, packet);
    else if (packet_is(packet, "attend"))
        handle_attend(session, packet);
    else if (packet_is(packet, "error"))
        handle_error(session, packet);
    else if (!handle_common(session, packet))
        vanished(session, reason(INVALID));
    return true;
}

bool session_run(const struct options *options, const char *socket_path, char **argv, int *status)
{
    __attribute__((cleanup(close_session))) struct session session = {
        .options = options, .path = socket_path, .connection = -1};
    const char *trouble = greet(&session);

    if (!trouble && !send_command(session.connection, argv))
        trouble = error_text(errno);
    if (trouble) {
        report_debug(options, "supervisor at %s: %s, going the direct way", socket_path, trouble);
        return false;
    }
    while (!session.ended) {
        auto_packet packet = {0};
        enum receipt receipt = wire_receive(session.connection, -1, &packet);
        if (receipt != RECEIVED)
            vanished(&session, reason(receipt));
        else if (!handle(&session, &packet))
            return false;
    }
    reap_stage0(&session);
    *status = session.status;
    return true;
}
