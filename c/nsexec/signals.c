#include "signals.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KERNEL_SIGNALS 64

void signals_reset(void)
{
    /*
     * Not through sigaction(3): the C libraries refuse the signals that they use themselves, but an ignored one of
     * those would reach the program too. All zero is SIG_DFL in every architecture's struct; 64 bytes hold any of them.
     */
    uint64_t default_action[8] = {0}, no_signals = 0;

    for (int number = 1; number <= KERNEL_SIGNALS; number++)
        if (number != SIGKILL && number != SIGSTOP)
            (void)syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, sizeof(uint64_t));
}

static void end(int number)
{
    _exit(128 + number);
}

void signals_end_the_wait(void)
{
    static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        signal(ending[i], end);
}

void signals_prepare(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
}
