#include "subprocess.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "fds.h"
#include "kernel.h"
#include "signals.h"

struct pipe {
    int read;
    int write;
};

static struct pipe make_pipe(void)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        fail(.step = "run program", .syscall = "pipe2", .number = errno);
    return (struct pipe){ends[0], ends[1]};
}

static _Noreturn void become_program(const struct command *command, int input, int output, int errors, int verdict)
{
    int number = 0;

    fds_close_on_exec(-1, 3);
    if (dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0) {
        number = errno;
    } else {
        signals_reset();
        execve(command->path, command->arguments, command->environment);
        number = errno;
    }
    if (write(verdict, &number, sizeof(number)) != sizeof(number))
        _exit(126);
    _exit(127);
}

static int64_t now_in_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads what is there; closes the fd at its end. What exceeds the buffer is read and dropped, so that nobody blocks. */
static void drain(int *fd, char *buffer, size_t *used)
{
    char chunk[1024];

    for (;;) {
        ssize_t count = read(*fd, chunk, sizeof(chunk));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count <= 0) {
            close_fd(fd);
            return;
        }
        size_t room = CAPTURE_MAX - *used, take = (size_t)count < room ? (size_t)count : room;
        memcpy(buffer + *used, chunk, take);
        *used += take;
    }
}

static void feed(int *fd, const struct command *command, size_t *done)
{
    while (*done < command->input_size) {
        ssize_t count = write(*fd, command->input + *done, command->input_size - *done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0)
            break; /* EPIPE: a program need not read its input */
        *done += (size_t)count;
    }
    close_fd(fd);
}

static void set_non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        fail(.step = "run program", .syscall = "fcntl", .number = errno);
}

/* Waits for the end of the process, not of its output: a daemon that it left behind may hold that open. */
static void attend(const struct command *command, struct outcome *outcome, int pidfd, int *input, int *output,
                   int *errors)
{
    int64_t deadline = command->timeout < 0 ? -1 : now_in_milliseconds() + command->timeout * 1000;
    size_t fed = 0, output_used = 0, errors_used = 0;

    for (;;) {
        struct pollfd polled[] = {{pidfd, POLLIN, 0}, {*input, POLLOUT, 0}, {*output, POLLIN, 0}, {*errors, POLLIN, 0}};
        int64_t left = deadline < 0 ? -1 : deadline - now_in_milliseconds();
        if (deadline >= 0 && left <= 0) {
            outcome->timed_out = true;
            return;
        }
        if (left > 3600 * 1000)
            left = 3600 * 1000;
        if (poll(polled, 4, (int)left) < 0 && errno != EINTR)
            fail(.step = "run program", .syscall = "poll", .number = errno);
        if (polled[1].revents)
            feed(input, command, &fed);
        if (polled[2].revents || (polled[0].revents && *output >= 0))
            drain(output, outcome->output, &output_used);
        if (polled[3].revents || (polled[0].revents && *errors >= 0))
            drain(errors, outcome->errors, &errors_used);
        if (polled[0].revents)
            return;
    }
}

void subprocess_run(const struct command *command, struct outcome *outcome)
{
    struct pipe input = make_pipe(), output = make_pipe(), errors = make_pipe(), verdict = make_pipe();

    memset(outcome, 0, sizeof(*outcome));
    pid_t pid = fork();
    if (pid < 0)
        fail(.step = "run program", .syscall = "fork", .number = errno, .path = command->path);
    if (pid == 0)
        become_program(command, input.read, output.write, errors.write, verdict.write);

    auto_fd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        fail(.step = "run program", .syscall = "pidfd_open", .number = errno, .path = command->path);
    close(input.read);
    close(output.write);
    close(errors.write);
    close(verdict.write);
    set_non_blocking(input.write);
    set_non_blocking(output.read);
    set_non_blocking(errors.read);
    attend(command, outcome, pidfd, &input.write, &output.read, &errors.read);
    if (outcome->timed_out && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
        log_line("ignoring: kill %s: %s", command->path, strerror(errno));
    while (waitpid(pid, &outcome->status, 0) < 0 && errno == EINTR)
        ;
    if (read(verdict.read, &outcome->exec_errno, sizeof(int)) != sizeof(int))
        outcome->exec_errno = 0;
    close_fd(&input.write);
    close_fd(&output.read);
    close_fd(&errors.read);
    close(verdict.read);
}

char *wait_status_text(int status)
{
    if (WIFSIGNALED(status)) {
        char *text = format_text("signal: %s", strsignal(WTERMSIG(status)));
        text[sizeof("signal: ") - 1] = (char)tolower(text[sizeof("signal: ") - 1]);
        return text;
    }
    return format_text("exit status %d", WEXITSTATUS(status));
}
