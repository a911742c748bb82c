#include "attend.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"
#include "../nsexec/kernel.h"
#include "relay.h"

enum { PROCESS, SIGNALS, CONNECTION, RELAY };
#define WATCHED (RELAY + RELAY_FDS)

static int signals = -1;

bool attend_prepare(bool subreaper)
{
    /*
     * Not through the C libraries, which leave out the real-time signals that they use themselves: to callers and
     * containers these are signals like others, and which ones they are differs (32 to 34 with musl, 32 and 33 with
     * glibc, as ctr_supervisor/process/foreground.py has it).
     */
    uint64_t all = ~(UINT64_C(3) << (32 - 1));

    if (subreaper && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return false;
    if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof(all)) < 0)
        return false;
    if (signals < 0)
        signals = (int)syscall(SYS_signalfd4, -1, &all, sizeof(all), SFD_CLOEXEC | SFD_NONBLOCK);
    return signals >= 0;
}

int attend_wait(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Reaps adopted orphans; the container process is left for attend_wait. */
static void reap_others(pid_t kept)
{
    for (;;) {
        siginfo_t found = {0};
        if (waitid(P_ALL, 0, &found, WEXITED | WNOHANG | WNOWAIT) < 0)
            return;
        /* the oldest zombie is shown first again and again; what is behind ours its own end makes unimportant */
        if (found.si_pid == 0 || found.si_pid == kept)
            return;
        (void)waitpid(found.si_pid, NULL, 0);
    }
}

static void handle_signal(pid_t pid, int pidfd, struct relay *relay)
{
    struct signalfd_siginfo signal;

    if (read(signals, &signal, sizeof(signal)) != sizeof(signal))
        return;
    switch (signal.ssi_signo) {
    case SIGCHLD:
        reap_others(pid);
        return;
    case SIGPIPE: /* our own broken pipes and out-of-band data are not the container's */
    case SIGURG:
        return;
    case SIGWINCH:
        if (relay) {
            relay_resize(relay);
            return;
        }
    }
    /* one that has just ended needs no signal; one that takes none from us goes on without */
    (void)syscall(SYS_pidfd_send_signal, pidfd, signal.ssi_signo, NULL, 0);
}

/* Signals and waits are for a process that was made here, and for no other that the number may stand for. */
static bool is_child(pid_t pid)
{
    siginfo_t found = {0};

    return waitid(P_PID, (id_t)pid, &found, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static int serve(pid_t pid, struct relay *relay, int connection, bool (*handle)(void *), void *context)
{
    auto_fd pidfd = is_child(pid) ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    struct pollfd watched[WATCHED];

    if (pidfd < 0)
        return -1;
    watched[PROCESS] = (struct pollfd){.fd = pidfd, .events = POLLIN};
    watched[SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
    watched[CONNECTION] = (struct pollfd){.fd = connection, .events = POLLIN};
    for (int i = RELAY; i < WATCHED; i++)
        watched[i] = (struct pollfd){.fd = -1};
    for (;;) {
        if (relay)
            relay_wanted(relay, watched + RELAY);
        if (poll(watched, WATCHED, -1) < 0) {
            if (errno != EINTR)
                return -1;
            continue;
        }
        if (watched[PROCESS].revents)
            return attend_wait(pid);
        if (watched[SIGNALS].revents)
            handle_signal(pid, pidfd, relay);
        if (watched[CONNECTION].revents && !handle(context))
            watched[CONNECTION].fd = -1;
        if (relay)
            relay_handle(relay, watched + RELAY);
    }
}

int attend(pid_t pid, int console, int connection, bool (*handle)(void *context), void *context)
{
    static struct relay relay;

    if (!attend_prepare(false)) {
        close_fd(&console);
        return -1;
    }
    if (console < 0)
        return serve(pid, NULL, connection, handle, context);
    relay_open(&relay, console);
    int status = serve(pid, &relay, connection, handle, context), number = errno;
    relay_drain(&relay);
    relay_close(&relay);
    errno = number;
    return status;
}
