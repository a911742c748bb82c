/* Unix sockets with fds in their messages. */
#include "kernel.h"

#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The kernel's SCM_MAX_FD: one message never carries more. */
#define FDS_MAX 253

static PyObject *kernel_socketpair(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "", names))
        return NULL;
    (void)self;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return kernel_error("socketpair");
    return Py_BuildValue("(ii)", fds[0], fds[1]);
}

static PyObject *kernel_connect_unix(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    RELEASED PyObject *path = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&", names, PyUnicode_FSConverter, &path))
        return NULL;
    (void)self;
    const char *name = kernel_chars(path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if ((size_t)PyBytes_GET_SIZE(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return kernel_error_path("connect", name);
    }
    memcpy(address.sun_path, name, (size_t)PyBytes_GET_SIZE(path));
    CLOSED int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return kernel_error_path("socket", name);
    int result;
    WITHOUT_GIL(result = connect(fd, (struct sockaddr *)&address, sizeof address));
    if (result < 0)
        return kernel_error_path("connect", name);
    PyObject *number = PyLong_FromLong(fd);
    if (number != NULL)
        fd = -1;
    return number;
}

/* Writes the SCM_RIGHTS header for the fds of a sequence into control; -1 with an exception set on failure. */
static int put_fds(struct msghdr *message, char *control, PyObject *fds)
{
    RELEASED PyObject *fast = PySequence_Fast(fds, "fds must be a sequence of int");
    if (fast == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    if (count == 0)
        return 0;
    if (count > FDS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd fds in one message: the limit is %d", count, FDS_MAX);
        return -1;
    }
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (Py_ssize_t i = 0; i < count; i++) {
        long fd = PyLong_AsLong(PySequence_Fast_GET_ITEM(fast, i));
        if (fd == -1 && PyErr_Occurred())
            return -1;
        int number = (int)fd;
        memcpy(CMSG_DATA(header) + (size_t)i * sizeof number, &number, sizeof number);
    }
    return 0;
}

static PyObject *send_until_sent(int fd, struct msghdr *message)
{
    for (;;) {
        ssize_t sent;
        WITHOUT_GIL(sent = sendmsg(fd, message, MSG_NOSIGNAL));
        if (sent >= 0)
            return PyLong_FromSsize_t(sent);
        if (errno != EINTR)
            return kernel_error("sendmsg");
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

static PyObject *kernel_sendmsg(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "data", "fds", NULL};
    int fd;
    Py_buffer data;
    PyObject *fds = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iy*|O", names, &fd, &data, &fds))
        return NULL;
    (void)self;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_MAX * sizeof(int))] = {0};
    struct iovec part = {.iov_base = data.buf, .iov_len = (size_t)data.len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    PyObject *result = NULL;
    if (fds == NULL || put_fds(&message, control, fds) == 0)
        result = send_until_sent(fd, &message);
    PyBuffer_Release(&data);
    return result;
}

/* Calls visit for each fd that came with the message. */
static int each_fd(struct msghdr *message, int (*visit)(int fd, void *context), void *context)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (visit(fd, context) < 0)
                return -1;
        }
    }
    return 0;
}

static int close_received(int fd, void *unused)
{
    (void)unused;
    (void)close(fd);
    return 0;
}

static int append_received(int fd, void *list)
{
    RELEASED PyObject *number = PyLong_FromLong(fd);
    return number == NULL ? -1 : PyList_Append(list, number);
}

static ssize_t receive(int fd, struct msghdr *message)
{
    struct msghdr pristine = *message;
    for (;;) {
        ssize_t received;
        *message = pristine;
        WITHOUT_GIL(received = recvmsg(fd, message, MSG_CMSG_CLOEXEC));
        if (received >= 0 || errno != EINTR)
            return received;
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

static PyObject *kernel_recvmsg(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "size", "max_fds", NULL};
    int fd, max_fds = 32;
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "in|i", names, &fd, &size, &max_fds))
        return NULL;
    (void)self;
    if (size < 0 || max_fds < 0 || max_fds > FDS_MAX)
        return PyErr_Format(PyExc_ValueError, "size must be positive and max_fds between 0 and %d", FDS_MAX);
    RELEASED PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    RELEASED PyObject *fds = PyList_New(0);
    if (data == NULL || fds == NULL)
        return NULL;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct iovec part = {.iov_base = PyBytes_AS_STRING(data), .iov_len = (size_t)size};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = max_fds == 0 ? 0 : CMSG_SPACE((size_t)max_fds * sizeof(int))};
    ssize_t received = receive(fd, &message);
    if (received < 0)
        return PyErr_Occurred() ? NULL : kernel_error("recvmsg");
    /* Half a message is a protocol error; its fds must not stay open here. The alignment of the control buffer may
       leave room for one fd more than was asked for. */
    bool truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    if (!truncated && each_fd(&message, append_received, fds) == 0 && PyList_GET_SIZE(fds) > max_fds)
        truncated = true;
    if (truncated || PyErr_Occurred() || _PyBytes_Resize(&data, received) < 0) {
        (void)each_fd(&message, close_received, NULL);
        errno = EMSGSIZE;
        return PyErr_Occurred() ? NULL : kernel_error("recvmsg");
    }
    return Py_BuildValue("(OOi)", data, fds, message.msg_flags);
}

PyMethodDef kernel_socket_methods[] = {
    METHOD(socketpair, "socketpair() -> (fd, fd)"),
    METHOD(connect_unix, "connect_unix(path) -> fd"),
    METHOD(sendmsg, "sendmsg(fd, data, fds=()) -> bytes sent"),
    METHOD(recvmsg, "recvmsg(fd, size, max_fds=32) -> (data, fds, flags)"),
    METHODS_END,
};
