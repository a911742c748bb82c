/*
 * A filter with a listener stops the process at every system call that it lists until the agent answers, and nobody
 * can answer before the listener got out. Its first victim could be the sendmsg that hands it over. So a second thread,
 * which the filter does not cover, hands it over; meanwhile the first one waits without a system call.
 */

#include "seccomp.h"

#include <linux/filter.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
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
static int courier_run(void *argument)
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
    return 0;
}

static void start_courier(int socket)
{
    const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

    courier.socket = socket;
    atomic_store(&courier.listener, NOT_YET);
    char *stack = mmap(NULL, COURIER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        fail(.step = "install seccomp filter", .syscall = "mmap", .number = errno);
    /* not a pthread: nothing of the C library's need exist for it, and execve ends it if it lives that long */
    if (clone(courier_run, stack + COURIER_STACK, flags, &courier) < 0)
        fail(.step = "install seccomp filter", .syscall = "clone", .number = errno);
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
