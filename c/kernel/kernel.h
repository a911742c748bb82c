/*
 * What the files of the _kernel extension share: error raising, argument conversion, small syscall fallbacks.
 *
 * Calls go through syscall(2) by number where glibc has no wrapper or only a recent one, so that the extension builds
 * with the headers of any distribution and fails at run time with ENOSYS on a kernel that is too old.
 */
#ifndef CTR_KERNEL_H
#define CTR_KERNEL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* Numbers that are the same on every architecture since the tables were unified (Linux 5.1). */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif
#ifndef SYS_fsconfig
#define SYS_fsconfig 431
#endif
#ifndef SYS_fsmount
#define SYS_fsmount 432
#endif
#ifndef SYS_fspick
#define SYS_fspick 433
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* Every file of wrappers offers one table; module.c adds them all. */
extern PyMethodDef kernel_mount_methods[];
extern PyMethodDef kernel_namespace_methods[];
extern PyMethodDef kernel_process_methods[];
extern PyMethodDef kernel_socket_methods[];
extern PyMethodDef kernel_memfd_methods[];
extern PyMethodDef kernel_signal_methods[];
extern PyMethodDef kernel_bpf_methods[];
extern PyMethodDef kernel_inotify_methods[];

/* Each raises OSError(errno, text[, path]) with the attribute `syscall` and returns NULL; errno is read on entry. */
PyObject *kernel_error(const char *syscall_name);
PyObject *kernel_error_path(const char *syscall_name, const char *path);
/* As kernel_error_path, with `detail` (may be NULL) after the errno's own text. */
PyObject *kernel_error_detail(const char *syscall_name, const char *path, const char *detail);

/* NULL for Py_None, else as PyUnicode_FSConverter; for the "O&" format. The result is a bytes object to release. */
int kernel_optional_path(PyObject *object, void *result);
/* Characters of a bytes object, or NULL. */
const char *kernel_chars(PyObject *bytes_or_null);

/* An fd as Python int, or the OSError if it is negative. */
PyObject *kernel_fd_result(long fd, const char *syscall_name, const char *path);
/* None, or the OSError if result is not 0. */
PyObject *kernel_none_result(long result, const char *syscall_name, const char *path);

/* Signals of an iterable of ints; -1 with an exception set on failure. */
int kernel_signal_set(PyObject *iterable, sigset_t *set);

static inline void kernel_close(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

static inline void kernel_clear(PyObject **object)
{
    Py_CLEAR(*object);
}

#define CLOSED __attribute__((cleanup(kernel_close)))
#define RELEASED __attribute__((cleanup(kernel_clear)))

/* The statement with the GIL released; errno survives. */
#define WITHOUT_GIL(statement)                                                                                         \
    do {                                                                                                               \
        int errno_kept;                                                                                                \
        Py_BEGIN_ALLOW_THREADS;                                                                                        \
        statement;                                                                                                     \
        errno_kept = errno;                                                                                            \
        Py_END_ALLOW_THREADS;                                                                                          \
        errno = errno_kept;                                                                                            \
    } while (0)

#define METHOD(name, doc)                                                                                              \
    {                                                                                                                  \
#name, (PyCFunction)(void (*)(void))kernel_##name, METH_VARARGS | METH_KEYWORDS, doc                           \
    }
#define METHODS_END                                                                                                    \
    {                                                                                                                  \
        NULL, NULL, 0, NULL                                                                                            \
    }

#endif
