/* Signal masks and signalfd; the signal module costs 5 ms of imports (enum). */
#include "kernel.h"

#include <sys/signalfd.h>

int kernel_signal_set(PyObject *iterable, sigset_t *set)
{
    (void)sigemptyset(set);
    RELEASED PyObject *iterator = PyObject_GetIter(iterable);
    if (iterator == NULL)
        return -1;
    for (;;) {
        RELEASED PyObject *item = PyIter_Next(iterator);
        if (item == NULL)
            return PyErr_Occurred() ? -1 : 0;
        long number = PyLong_AsLong(item);
        if (number == -1 && PyErr_Occurred())
            return -1;
        if (number < 1 || number >= NSIG) {
            PyErr_Format(PyExc_ValueError, "signal number %ld out of range", number);
            return -1;
        }
        (void)sigaddset(set, (int)number); /* refuses the two that glibc keeps for itself: those are never masked */
    }
}

static PyObject *signals_of(const sigset_t *set)
{
    PyObject *result = PySet_New(NULL);
    if (result == NULL)
        return NULL;
    for (int number = 1; number < NSIG; number++) {
        if (sigismember(set, number) != 1)
            continue;
        RELEASED PyObject *item = PyLong_FromLong(number);
        if (item == NULL || PySet_Add(result, item) < 0) {
            Py_DECREF(result);
            return NULL;
        }
    }
    return result;
}

static PyObject *kernel_sigprocmask(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"how", "signals", NULL};
    int how;
    PyObject *signals;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO", names, &how, &signals))
        return NULL;
    (void)self;
    sigset_t set, before;
    if (kernel_signal_set(signals, &set) < 0)
        return NULL;
    int number = pthread_sigmask(how, &set, &before);
    if (number != 0) {
        errno = number;
        return kernel_error("rt_sigprocmask");
    }
    /* A signal that was pending is delivered by now: let its Python handler run before the caller goes on. */
    if (PyErr_CheckSignals() < 0)
        return NULL;
    return signals_of(&before);
}

static PyObject *kernel_signalfd(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"signals", "flags", NULL};
    PyObject *signals;
    int flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|i", names, &signals, &flags))
        return NULL;
    (void)self;
    sigset_t set;
    if (kernel_signal_set(signals, &set) < 0)
        return NULL;
    return kernel_fd_result(signalfd(-1, &set, flags | SFD_CLOEXEC), "signalfd", NULL);
}

static PyObject *kernel_read_signalfd(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &fd))
        return NULL;
    (void)self;
    struct signalfd_siginfo info;
    for (;;) {
        ssize_t length;
        WITHOUT_GIL(length = read(fd, &info, sizeof info));
        if (length == (ssize_t)sizeof info)
            return Py_BuildValue("(IIi)", info.ssi_signo, info.ssi_pid, info.ssi_status);
        if (length >= 0)
            errno = EIO; /* not a signalfd */
        if (errno != EINTR)
            return kernel_error("read");
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

PyMethodDef kernel_signal_methods[] = {
    METHOD(sigprocmask, "sigprocmask(how, signals) -> set before"),
    METHOD(signalfd, "signalfd(signals, flags=0) -> fd"),
    METHOD(read_signalfd, "read_signalfd(fd) -> (signo, pid, status)"),
    METHODS_END,
};
