/* Sealed memfds: copies that nobody can change, for the binary of ctr-init and for large messages. */
#include "kernel.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SEAL 0x0001
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#define F_SEAL_WRITE 0x0008
#endif
#define KERNEL_F_SEAL_EXEC 0x0020
#define KERNEL_MFD_NOEXEC_SEAL 0x0008U
#define KERNEL_MFD_EXEC 0x0010U

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* vm.memfd_noexec (Linux 6.3): 0 and 1 allow MFD_EXEC; 2 refuses it, and then only the contents are of use. */
static int create(const char *name)
{
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create(name, flags | KERNEL_MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, flags);
    if (fd < 0 && errno == EACCES)
        fd = memfd_create(name, flags | KERNEL_MFD_NOEXEC_SEAL);
    return fd;
}

static int copy_bytes(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* The whole file, whatever the offset of its fd, which stays as it is. */
static int copy_file(int fd, int source)
{
    struct stat status;
    if (fstat(source, &status) < 0)
        return -1;
    off_t offset = 0;
    for (;;) {
        size_t left = status.st_size > offset ? (size_t)(status.st_size - offset) : 1;
        ssize_t copied = sendfile(fd, source, &offset, left);
        if (copied < 0 && errno == EINTR)
            continue;
        if (copied < 0)
            return -1;
        if (copied == 0 || offset >= status.st_size)
            return 0;
    }
}

/* ctr-init is executed from the result: an open writable fd would make that fail with ETXTBSY. */
static int reopen_read_only(int fd)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static PyObject *sealed(int fd, const char *name)
{
    /* F_SEAL_EXEC (Linux 6.3) fixes the mode bits; older kernels refuse the unknown bit. */
    if (fcntl(fd, F_ADD_SEALS, SEALS | KERNEL_F_SEAL_EXEC) < 0 &&
        (errno != EINVAL || fcntl(fd, F_ADD_SEALS, SEALS) < 0))
        return kernel_error_path("fcntl", name);
    return kernel_fd_result(reopen_read_only(fd), "open", name);
}

static PyObject *kernel_memfd_sealed(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", "contents", NULL};
    const char *name;
    PyObject *contents;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sO", names, &name, &contents))
        return NULL;
    (void)self;
    int source = -1;
    if (PyLong_Check(contents)) {
        long number = PyLong_AsLong(contents);
        if (number == -1 && PyErr_Occurred())
            return NULL;
        source = (int)number;
    } else if (!PyObject_CheckBuffer(contents)) {
        return PyErr_Format(PyExc_TypeError, "contents must be bytes or an fd, not %s", Py_TYPE(contents)->tp_name);
    }
    CLOSED int fd = create(name);
    if (fd < 0)
        return kernel_error_path("memfd_create", name);
    int result;
    if (PyLong_Check(contents)) {
        WITHOUT_GIL(result = copy_file(fd, source));
        if (result < 0)
            return kernel_error_path("sendfile", name);
        return sealed(fd, name);
    }
    Py_buffer data;
    if (PyObject_GetBuffer(contents, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    result = copy_bytes(fd, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    if (result < 0)
        return kernel_error_path("write", name);
    return sealed(fd, name);
}

PyMethodDef kernel_memfd_methods[] = {
    METHOD(memfd_sealed, "memfd_sealed(name, contents) -> fd"),
    METHODS_END,
};
