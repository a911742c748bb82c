/* Raising OSErrors that carry the name of the syscall, and the argument conversions that every file uses. */
#include "kernel.h"

#include <string.h>

static PyObject *error_arguments(int number, const char *path, const char *detail)
{
    RELEASED PyObject *text = NULL;
    if (detail != NULL && detail[0] != '\0')
        text = PyUnicode_FromFormat("%s: %s", strerror(number), detail);
    else
        text = PyUnicode_FromString(strerror(number));
    if (text == NULL)
        return NULL;
    if (path == NULL)
        return Py_BuildValue("(iO)", number, text);
    RELEASED PyObject *name = PyUnicode_DecodeFSDefault(path);
    if (name == NULL)
        return NULL;
    return Py_BuildValue("(iOO)", number, text, name);
}

PyObject *kernel_error_detail(const char *syscall_name, const char *path, const char *detail)
{
    RELEASED PyObject *arguments = error_arguments(errno, path, detail);
    if (arguments == NULL)
        return NULL;
    /* Calling the type picks the subclass of the errno (FileNotFoundError, BlockingIOError, ...). */
    RELEASED PyObject *error = PyObject_CallObject(PyExc_OSError, arguments);
    if (error == NULL)
        return NULL;
    RELEASED PyObject *name = PyUnicode_FromString(syscall_name);
    if (name == NULL || PyObject_SetAttrString(error, "syscall", name) < 0)
        return NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    return NULL;
}

PyObject *kernel_error_path(const char *syscall_name, const char *path)
{
    return kernel_error_detail(syscall_name, path, NULL);
}

PyObject *kernel_error(const char *syscall_name)
{
    return kernel_error_detail(syscall_name, NULL, NULL);
}

int kernel_optional_path(PyObject *object, void *result)
{
    PyObject **slot = result;
    if (object == NULL) { /* a later argument was wrong: release */
        Py_CLEAR(*slot);
        return 1;
    }
    if (object == Py_None) {
        *slot = NULL;
        return Py_CLEANUP_SUPPORTED;
    }
    return PyUnicode_FSConverter(object, slot);
}

const char *kernel_chars(PyObject *bytes_or_null)
{
    return bytes_or_null == NULL ? NULL : PyBytes_AS_STRING(bytes_or_null);
}

PyObject *kernel_fd_result(long fd, const char *syscall_name, const char *path)
{
    if (fd < 0)
        return kernel_error_path(syscall_name, path);
    return PyLong_FromLong(fd);
}

PyObject *kernel_none_result(long result, const char *syscall_name, const char *path)
{
    if (result != 0)
        return kernel_error_path(syscall_name, path);
    Py_RETURN_NONE;
}
