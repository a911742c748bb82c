/*
 * A filter with a listener stops the process at every system call that it lists until the agent answers, and nobody
 * can answer before the listener got out. Its first victim could be the sendmsg that hands it over. So a second thread,
 * which the filter does not cover, hands it over; meanwhile the first one waits without a system call.
 */

#include "seccomp.h"

#include <linux/filter.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "error.h"
#include "kernel.h"
#include "message.h"

#define COURIER_STACK (256 * 1024)
#define NOT_YET (-1)

static struct courier {
    int socket;
    atomic_int listener;
    atomic_bool delivered;
} courier;

bool seccomp_has_listener(const struct settings *settings)
{
    return settings->seccomp.data && (settings->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

/* Anything that goes wrong here ends the whole process: _exit is exit_group, and no filter covers this thread. */
static void *courier_run(void *argument)
{
    struct courier *self = argument;
    int listener;

    while ((listener = atomic_load(&self->listener)) == NOT_YET)
        sched_yield();
    struct writer writer = message_begin(MSG_SECCOMP_LISTENER);
    put_fd(&writer, ATTR_LISTENER_FD, listener);
    if (!message_send(self->socket, &writer))
        quit();
    message_acknowledged(self->socket);
    atomic_store(&self->delivered, true);
    return NULL;
}

static void start_courier(int socket)
{
    pthread_attr_t attributes;
    pthread_t thread;

    courier.socket = socket;
    atomic_store(&courier.listener, NOT_YET);
    /* since musl 1.2.4 clone(3) makes no threads; execve ends this one if it lives that long */
    int number = pthread_attr_init(&attributes);
    if (number == 0)
        number = pthread_attr_setstacksize(&attributes, COURIER_STACK);
    if (number == 0)
        number = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (number == 0)
        number = pthread_create(&thread, &attributes, courier_run, &courier);
    if (number)
        fail(.step = "install seccomp filter", .syscall = "clone", .number = number);
}

void seccomp_install(const struct settings *settings, int socket)
{
    const struct blob *filter = &settings->seccomp;
    bool listens = seccomp_has_listener(settings);
    unsigned long flags = settings->seccomp_flags;

    if (!filter->data)
        return;
    if (filter->size == 0 || filter->size % sizeof(struct sock_filter) ||
        filter->size / sizeof(struct sock_filter) > BPF_MAXINSNS)
        fail(.kind = "ProtocolError", .step = "install seccomp filter", .message = "SECCOMP_BPF of a wrong size");
    struct sock_fprog program = {.len = (unsigned short)(filter->size / sizeof(struct sock_filter)),
                                 .filter = (struct sock_filter *)(void *)filter->data};
    if (listens) {
        /* this thread alone goes on to execve, so synchronising would only catch the courier */
        flags &= ~(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
        start_courier(socket);
    }
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (result < 0)
        fail(.step = "install seccomp filter", .syscall = "seccomp", .number = errno,
             .hint = errno == EACCES ? "without noNewPrivileges this needs CAP_SYS_ADMIN" : NULL);
    if (!listens)
        return;
    atomic_store(&courier.listener, (int)result);
    while (!atomic_load(&courier.delivered))
        ;
    close((int)result);
}
