/* Namespaces and what belongs to them. */
#include "kernel.h"

#include <sched.h>
#include <string.h>

static PyObject *kernel_setns(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "nstype", NULL};
    int fd, nstype;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ii", names, &fd, &nstype))
        return NULL;
    (void)self;
    return kernel_none_result(setns(fd, nstype), "setns", NULL);
}

static PyObject *kernel_unshare(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"flags", NULL};
    int flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &flags))
        return NULL;
    (void)self;
    return kernel_none_result(unshare(flags), "unshare", NULL);
}

static PyObject *kernel_sethostname(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", NULL};
    const char *name;
    Py_ssize_t length;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s#", names, &name, &length))
        return NULL;
    (void)self;
    return kernel_none_result(sethostname(name, (size_t)length), "sethostname", NULL);
}

static PyObject *kernel_setdomainname(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", NULL};
    const char *name;
    Py_ssize_t length;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s#", names, &name, &length))
        return NULL;
    (void)self;
    return kernel_none_result(setdomainname(name, (size_t)length), "setdomainname", NULL);
}

PyMethodDef kernel_namespace_methods[] = {
    METHOD(setns, "setns(fd, nstype)"),
    METHOD(unshare, "unshare(flags)"),
    METHOD(sethostname, "sethostname(name)"),
    METHOD(setdomainname, "setdomainname(name)"),
    METHODS_END,
};
