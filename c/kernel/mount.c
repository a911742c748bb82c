/* Paths and mounts: openat2, the fd-based mount API, the old mount calls, and what tells one mount from another. */
#include "kernel.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#define KERNEL_OPEN_TREE_CLOEXEC O_CLOEXEC
#define KERNEL_FSOPEN_CLOEXEC 1U
#define KERNEL_FSMOUNT_CLOEXEC 1U
#define KERNEL_FSPICK_CLOEXEC 1U
#define KERNEL_FSCONFIG_SET_BINARY 2U
#define KERNEL_STATX_MNT_ID 0x1000U
#define KERNEL_STATX_MNT_ID_UNIQUE 0x4000U
#define KERNEL_STATX_ATTR_MOUNT_ROOT 0x2000U

/* openat2(2): with RESOLVE_IN_ROOT or RESOLVE_BENEATH a rename or mount anywhere makes ".." answer EAGAIN. */
#define OPENAT2_ATTEMPTS 128

/* linux/openat2.h and linux/mount.h clash with glibc's headers or are missing on older systems. */
struct kernel_open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

struct kernel_mount_attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

struct kernel_statx {
    uint32_t mask;
    uint32_t blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    uint64_t times[8];
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t mnt_id;
    uint64_t spare[13];
};
_Static_assert(sizeof(struct kernel_statx) == 256, "struct statx is 256 bytes in the kernel's ABI");

static PyObject *kernel_openat2(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dirfd", "path", "flags", "mode", "resolve", NULL};
    int dirfd;
    RELEASED PyObject *path = NULL;
    unsigned long long flags, mode = 0, resolve = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&K|KK", names, &dirfd, PyUnicode_FSConverter, &path, &flags,
                                     &mode, &resolve))
        return NULL;
    (void)self;
    struct kernel_open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    const char *name = kernel_chars(path);
    long fd = -1;
    for (int attempt = 0; attempt < OPENAT2_ATTEMPTS; attempt++) {
        WITHOUT_GIL(fd = syscall(SYS_openat2, dirfd, name, &how, sizeof how));
        if (fd >= 0)
            break;
        if (errno == EINTR) {
            if (PyErr_CheckSignals() < 0)
                return NULL;
            continue;
        }
        /* Without RESOLVE_*, EAGAIN is about the file itself (a lease, RESOLVE_CACHED) and the caller's to handle. */
        if (errno != EAGAIN || resolve == 0)
            break;
    }
    return kernel_fd_result(fd, "openat2", name);
}

static PyObject *kernel_open_tree(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dirfd", "path", "flags", NULL};
    int dirfd;
    RELEASED PyObject *path = NULL;
    unsigned int flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&I", names, &dirfd, PyUnicode_FSConverter, &path, &flags))
        return NULL;
    (void)self;
    const char *name = kernel_chars(path);
    long fd = syscall(SYS_open_tree, dirfd, name, flags | KERNEL_OPEN_TREE_CLOEXEC);
    return kernel_fd_result(fd, "open_tree", name);
}

static PyObject *kernel_move_mount(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"from_dirfd", "from_path", "to_dirfd", "to_path", "flags", NULL};
    int from_dirfd, to_dirfd;
    RELEASED PyObject *from_path = NULL;
    RELEASED PyObject *to_path = NULL;
    unsigned int flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&iO&I", names, &from_dirfd, PyUnicode_FSConverter, &from_path,
                                     &to_dirfd, PyUnicode_FSConverter, &to_path, &flags))
        return NULL;
    (void)self;
    const char *from = kernel_chars(from_path), *to = kernel_chars(to_path);
    long result = syscall(SYS_move_mount, from_dirfd, from, to_dirfd, to, flags);
    return kernel_none_result(result, "move_mount", to);
}

static PyObject *kernel_fsopen(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", "flags", NULL};
    const char *name;
    unsigned int flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s|I", names, &name, &flags))
        return NULL;
    (void)self;
    return kernel_fd_result(syscall(SYS_fsopen, name, flags | KERNEL_FSOPEN_CLOEXEC), "fsopen", name);
}

/* A failed call may have been given another kind of fd: reading a socket would take its data, or wait for some. */
static bool is_context(int fd)
{
    char path[32], target[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target);
    return length == sizeof "anon_inode:[fscontext]" - 1 &&
           memcmp(target, "anon_inode:[fscontext]", (size_t)length) == 0;
}

/* The messages that the kernel left in a filesystem context, without their severity, joined by "; ". */
static void read_context_log(int fd, char *log, size_t size)
{
    size_t used = 0;
    log[0] = '\0';
    while (is_context(fd)) {
        char line[512];
        ssize_t length = read(fd, line, sizeof line - 1);
        if (length <= 0)
            return;
        while (length > 0 && line[length - 1] == '\n')
            length--;
        line[length] = '\0';
        const char *text = length > 2 && line[1] == ' ' ? line + 2 : line;
        int written = snprintf(log + used, size - used, "%s%s", used > 0 ? "; " : "", text);
        if (written < 0 || (size_t)written >= size - used)
            return;
        used += (size_t)written;
    }
}

/* The value of fsconfig: bytes as they are for SET_BINARY, otherwise a string without NUL. */
static int fsconfig_value(unsigned int command, PyObject *value, PyObject **converted)
{
    *converted = NULL;
    if (value == Py_None)
        return 0;
    if (command == KERNEL_FSCONFIG_SET_BINARY) {
        if (!PyBytes_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "FSCONFIG_SET_BINARY takes bytes");
            return -1;
        }
        *converted = Py_NewRef(value);
        return 0;
    }
    return PyUnicode_FSConverter(value, converted) ? 0 : -1;
}

static PyObject *kernel_fsconfig(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "cmd", "key", "value", "aux", NULL};
    int fd, aux = 0;
    unsigned int command;
    const char *key = NULL;
    PyObject *value = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iI|zOi", names, &fd, &command, &key, &value, &aux))
        return NULL;
    (void)self;
    RELEASED PyObject *converted = NULL;
    if (fsconfig_value(command, value, &converted) < 0)
        return NULL;
    if (command == KERNEL_FSCONFIG_SET_BINARY && converted != NULL)
        aux = (int)PyBytes_GET_SIZE(converted);
    long result;
    const char *text = kernel_chars(converted);
    WITHOUT_GIL(result = syscall(SYS_fsconfig, fd, command, key, text, aux));
    if (result == 0)
        Py_RETURN_NONE;
    char log[2048];
    int number = errno;
    read_context_log(fd, log, sizeof log);
    errno = number;
    return kernel_error_detail("fsconfig", NULL, log);
}

static PyObject *kernel_fsmount(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "flags", "attr_flags", NULL};
    int fd;
    unsigned int flags, attr_flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iII", names, &fd, &flags, &attr_flags))
        return NULL;
    (void)self;
    long mount_fd = syscall(SYS_fsmount, fd, flags | KERNEL_FSMOUNT_CLOEXEC, attr_flags);
    if (mount_fd >= 0)
        return PyLong_FromLong(mount_fd);
    char log[2048];
    int number = errno;
    read_context_log(fd, log, sizeof log);
    errno = number;
    return kernel_error_detail("fsmount", NULL, log);
}

static PyObject *kernel_fspick(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dirfd", "path", "flags", NULL};
    int dirfd;
    RELEASED PyObject *path = NULL;
    unsigned int flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&I", names, &dirfd, PyUnicode_FSConverter, &path, &flags))
        return NULL;
    (void)self;
    const char *name = kernel_chars(path);
    return kernel_fd_result(syscall(SYS_fspick, dirfd, name, flags | KERNEL_FSPICK_CLOEXEC), "fspick", name);
}

static PyObject *kernel_mount_setattr(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dirfd", "path", "flags", "attr_set", "attr_clr", "propagation", "userns_fd", NULL};
    int dirfd;
    RELEASED PyObject *path = NULL;
    unsigned int flags;
    unsigned long long set = 0, clear = 0, propagation = 0, userns_fd = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&I|KKKK", names, &dirfd, PyUnicode_FSConverter, &path, &flags,
                                     &set, &clear, &propagation, &userns_fd))
        return NULL;
    (void)self;
    struct kernel_mount_attr attr = {set, clear, propagation, userns_fd};
    const char *name = kernel_chars(path);
    long result = syscall(SYS_mount_setattr, dirfd, name, flags, &attr, sizeof attr);
    return kernel_none_result(result, "mount_setattr", name);
}

static PyObject *kernel_mount(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "target", "fstype", "flags", "data", NULL};
    RELEASED PyObject *source = NULL;
    RELEASED PyObject *target = NULL;
    RELEASED PyObject *data = NULL;
    const char *fstype;
    unsigned long flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&zkO&", names, kernel_optional_path, &source,
                                     PyUnicode_FSConverter, &target, &fstype, &flags, kernel_optional_path, &data))
        return NULL;
    (void)self;
    const char *from = kernel_chars(source), *to = kernel_chars(target), *options = kernel_chars(data);
    int result;
    WITHOUT_GIL(result = mount(from, to, fstype, flags, options));
    return kernel_none_result(result, "mount", to);
}

static PyObject *kernel_umount2(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"target", "flags", NULL};
    RELEASED PyObject *target = NULL;
    int flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&i", names, PyUnicode_FSConverter, &target, &flags))
        return NULL;
    (void)self;
    const char *name = kernel_chars(target);
    int result;
    WITHOUT_GIL(result = umount2(name, flags));
    return kernel_none_result(result, "umount2", name);
}

static PyObject *kernel_pivot_root(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"new_root", "put_old", NULL};
    RELEASED PyObject *new_root = NULL;
    RELEASED PyObject *put_old = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&", names, PyUnicode_FSConverter, &new_root,
                                     PyUnicode_FSConverter, &put_old))
        return NULL;
    (void)self;
    const char *name = kernel_chars(new_root);
    return kernel_none_result(syscall(SYS_pivot_root, name, kernel_chars(put_old)), "pivot_root", name);
}

static PyObject *kernel_fstatfs_type(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &fd))
        return NULL;
    (void)self;
    struct statfs status;
    if (fstatfs(fd, &status) < 0)
        return kernel_error("fstatfs");
    /* f_type is signed on some architectures and 32 bits wide: the magic numbers are meant unsigned. */
    return PyLong_FromUnsignedLong((unsigned long)status.f_type & 0xffffffffUL);
}

static int do_statx(int dirfd, const char *path, unsigned int mask, struct kernel_statx *status)
{
    return (int)syscall(SYS_statx, dirfd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, mask, status);
}

static PyObject *kernel_statx_mnt_id(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &fd))
        return NULL;
    (void)self;
    struct kernel_statx status = {0};
    if (do_statx(fd, "", KERNEL_STATX_MNT_ID_UNIQUE, &status) < 0)
        return kernel_error("statx");
    if ((status.mask & KERNEL_STATX_MNT_ID_UNIQUE) == 0) {
        /* Before Linux 6.8 there is only the id that is reused after an unmount. */
        if (do_statx(fd, "", KERNEL_STATX_MNT_ID, &status) < 0)
            return kernel_error("statx");
        if ((status.mask & KERNEL_STATX_MNT_ID) == 0) {
            errno = EOPNOTSUPP;
            return kernel_error("statx");
        }
    }
    return PyLong_FromUnsignedLongLong(status.mnt_id);
}

static PyObject *kernel_is_mount_root(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dirfd", "path", NULL};
    int dirfd;
    RELEASED PyObject *path = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&", names, &dirfd, PyUnicode_FSConverter, &path))
        return NULL;
    (void)self;
    struct kernel_statx status = {0};
    const char *name = kernel_chars(path);
    if (do_statx(dirfd, name, 0, &status) < 0)
        return kernel_error_path("statx", name);
    if ((status.attributes_mask & KERNEL_STATX_ATTR_MOUNT_ROOT) == 0) {
        errno = EOPNOTSUPP; /* before Linux 5.8 */
        return kernel_error_path("statx", name);
    }
    return PyBool_FromLong((status.attributes & KERNEL_STATX_ATTR_MOUNT_ROOT) != 0);
}

PyMethodDef kernel_mount_methods[] = {
    METHOD(openat2, "openat2(dirfd, path, flags, mode=0, resolve=0) -> fd"),
    METHOD(open_tree, "open_tree(dirfd, path, flags) -> fd"),
    METHOD(move_mount, "move_mount(from_dirfd, from_path, to_dirfd, to_path, flags)"),
    METHOD(fsopen, "fsopen(name, flags=0) -> fd"),
    METHOD(fsconfig, "fsconfig(fd, cmd, key=None, value=None, aux=0)"),
    METHOD(fsmount, "fsmount(fd, flags, attr_flags) -> fd"),
    METHOD(fspick, "fspick(dirfd, path, flags) -> fd"),
    METHOD(mount_setattr, "mount_setattr(dirfd, path, flags, attr_set=0, attr_clr=0, propagation=0, userns_fd=0)"),
    METHOD(mount, "mount(source, target, fstype, flags, data)"),
    METHOD(umount2, "umount2(target, flags)"),
    METHOD(pivot_root, "pivot_root(new_root, put_old)"),
    METHOD(fstatfs_type, "fstatfs_type(fd) -> f_type"),
    METHOD(statx_mnt_id, "statx_mnt_id(fd) -> mount id"),
    METHOD(is_mount_root, "is_mount_root(dirfd, path) -> bool"),
    METHODS_END,
};
