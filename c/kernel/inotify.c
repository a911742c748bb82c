/* inotify: what changes below a directory, told without anybody looking. */
#include "kernel.h"

#include <sys/inotify.h>

#define READ_SIZE (64 * 1024)

static PyObject *kernel_inotify_init(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"flags", NULL};
    int flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|i", names, &flags))
        return NULL;
    (void)self;
    return kernel_fd_result(inotify_init1(flags | IN_CLOEXEC), "inotify_init1", NULL);
}

static PyObject *kernel_inotify_add_watch(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "path", "mask", NULL};
    int fd;
    unsigned int mask;
    RELEASED PyObject *path = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&I", names, &fd, PyUnicode_FSConverter, &path, &mask))
        return NULL;
    (void)self;
    int watch = inotify_add_watch(fd, kernel_chars(path), mask);
    if (watch < 0)
        return kernel_error_path("inotify_add_watch", kernel_chars(path));
    return PyLong_FromLong(watch);
}

static PyObject *kernel_inotify_rm_watch(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "watch", NULL};
    int fd, watch;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ii", names, &fd, &watch))
        return NULL;
    (void)self;
    return kernel_none_result(inotify_rm_watch(fd, watch), "inotify_rm_watch", NULL);
}

static int append_events(PyObject *list, const char *data, ssize_t length)
{
    for (ssize_t at = 0; at < length;) {
        /* the buffer is aligned, and the kernel pads names so that the next event is, too */
        const struct inotify_event *event = (const struct inotify_event *)(const void *)(data + at);
        RELEASED PyObject *name = PyUnicode_DecodeFSDefault(event->len > 0 ? event->name : "");
        if (name == NULL)
            return -1;
        RELEASED PyObject *tuple = Py_BuildValue("(iIO)", event->wd, event->mask, name);
        if (tuple == NULL || PyList_Append(list, tuple) < 0)
            return -1;
        at += (ssize_t)(sizeof *event + event->len);
    }
    return 0;
}

static PyObject *kernel_read_inotify(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &fd))
        return NULL;
    (void)self;
    _Alignas(struct inotify_event) char data[READ_SIZE];
    for (;;) {
        ssize_t length;
        WITHOUT_GIL(length = read(fd, data, sizeof data));
        if (length >= 0) {
            RELEASED PyObject *list = PyList_New(0);
            if (list == NULL || append_events(list, data, length) < 0)
                return NULL;
            return Py_NewRef(list);
        }
        if (errno != EINTR)
            return kernel_error("read");
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

PyMethodDef kernel_inotify_methods[] = {
    METHOD(inotify_init, "inotify_init(flags=0) -> fd"),
    METHOD(inotify_add_watch, "inotify_add_watch(fd, path, mask) -> watch"),
    METHOD(inotify_rm_watch, "inotify_rm_watch(fd, watch)"),
    METHOD(read_inotify, "read_inotify(fd) -> [(watch, mask, name)]"),
    METHODS_END,
};
