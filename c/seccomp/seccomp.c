/*
 * The module _seccomp: libseccomp's compiler, from rules to classic BPF.
 *
 * It only compiles. Filters are loaded by ctr-init, and what a profile means is decided in Python
 * (ctr_supervisor/engine/seccomp.py), which imports this module only when a filter is not in its cache: loading
 * libseccomp costs more than reading a compiled filter.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGUMENTS_MAX 6
#define KERNEL_SECCOMP_SET_MODE_FILTER 1U
#define KERNEL_SECCOMP_GET_ACTION_AVAIL 2U

static void release_filter(scmp_filter_ctx *filter)
{
    if (*filter != NULL)
        seccomp_release(*filter);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static void clear(PyObject **object)
{
    Py_CLEAR(*object);
}

#define RELEASED __attribute__((cleanup(clear)))

/* OSError with the function's name and the place in the list that it was given; libseccomp returns negative errnos. */
static void raise_error_at(int result, const char *function, Py_ssize_t index)
{
    RELEASED PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", -result, strerror(-result));
    RELEASED PyObject *name = PyUnicode_FromString(function);
    RELEASED PyObject *place = PyLong_FromSsize_t(index);
    if (error == NULL || name == NULL || place == NULL || PyObject_SetAttrString(error, "syscall", name) < 0 ||
        PyObject_SetAttrString(error, "index", place) < 0)
        return;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
}

static void raise_error(int result, const char *function)
{
    raise_error_at(result, function, -1);
}

static int add_architectures(scmp_filter_ctx filter, PyObject *architectures)
{
    RELEASED PyObject *fast = PySequence_Fast(architectures, "architectures must be a sequence of int");
    if (fast == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        unsigned long token = PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(fast, i));
        if (PyErr_Occurred())
            return -1;
        int result = seccomp_arch_add(filter, (uint32_t)token);
        if (result < 0 && result != -EEXIST) {
            raise_error_at(result, "seccomp_arch_add", i);
            return -1;
        }
    }
    return 0;
}

static int set_attributes(scmp_filter_ctx filter, PyObject *attributes)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(attributes, &position, &key, &value)) {
        long attribute = PyLong_AsLong(key);
        unsigned long setting = PyLong_AsUnsignedLong(value);
        if (PyErr_Occurred())
            return -1;
        int result = seccomp_attr_set(filter, (enum scmp_filter_attr)attribute, (uint32_t)setting);
        if (result < 0) {
            raise_error(result, "seccomp_attr_set");
            return -1;
        }
    }
    return 0;
}

/* Fills conditions from a sequence of (index, operator, value, second value); returns their number, -1 on failure. */
static int parse_conditions(PyObject *sequence, struct scmp_arg_cmp *conditions)
{
    RELEASED PyObject *fast = PySequence_Fast(sequence, "conditions must be a sequence of tuples");
    if (fast == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    if (count > ARGUMENTS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd conditions in one rule: the limit is %d", count, ARGUMENTS_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(fast, i);
        unsigned int index;
        int comparison;
        unsigned long long value, second;
        if (!PyTuple_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "a condition must be a tuple");
            return -1;
        }
        if (!PyArg_ParseTuple(item, "IiKK", &index, &comparison, &value, &second))
            return -1;
        conditions[i] = (struct scmp_arg_cmp){
            .arg = index, .op = (enum scmp_compare)comparison, .datum_a = value, .datum_b = second};
    }
    return (int)count;
}

static int add_rule(scmp_filter_ctx filter, PyObject *rule, Py_ssize_t place)
{
    unsigned int action;
    const char *name;
    PyObject *sequence;
    if (!PyTuple_Check(rule)) {
        PyErr_SetString(PyExc_TypeError, "a rule must be a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(rule, "IsO", &action, &name, &sequence))
        return -1;
    struct scmp_arg_cmp conditions[ARGUMENTS_MAX];
    int count = parse_conditions(sequence, conditions);
    if (count < 0)
        return -1;
    /* A profile names the syscalls of all architectures and kernels; what this libseccomp does not know is left out. */
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR)
        return 0;
    int result = seccomp_rule_add_array(filter, action, number, (unsigned int)count, conditions);
    if (result < 0) {
        raise_error_at(result, "seccomp_rule_add_array", place);
        return -1;
    }
    return 0;
}

static int add_rules(scmp_filter_ctx filter, PyObject *rules)
{
    RELEASED PyObject *fast = PySequence_Fast(rules, "rules must be a sequence of tuples");
    if (fast == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++)
        if (add_rule(filter, PySequence_Fast_GET_ITEM(fast, i), i) < 0)
            return -1;
    return 0;
}

/* The program as bytes; libseccomp before 2.6 can only write it to an fd. */
static PyObject *export_filter(scmp_filter_ctx filter)
{
    __attribute__((cleanup(close_fd))) int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0) {
        raise_error(-errno, "memfd_create");
        return NULL;
    }
    int result = seccomp_export_bpf(filter, fd);
    if (result < 0) {
        raise_error(result, "seccomp_export_bpf");
        return NULL;
    }
    struct stat status;
    if (fstat(fd, &status) < 0) {
        raise_error(-errno, "fstat");
        return NULL;
    }
    PyObject *program = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)status.st_size);
    if (program == NULL)
        return NULL;
    if (pread(fd, PyBytes_AS_STRING(program), (size_t)status.st_size, 0) != (ssize_t)status.st_size) {
        Py_DECREF(program);
        raise_error(-EIO, "pread");
        return NULL;
    }
    return program;
}

static PyObject *compile_rules(PyObject *self, PyObject *args)
{
    unsigned int default_action;
    PyObject *architectures, *attributes, *rules;
    if (!PyArg_ParseTuple(args, "IOO!O", &default_action, &architectures, &PyDict_Type, &attributes, &rules))
        return NULL;
    (void)self;
    __attribute__((cleanup(release_filter))) scmp_filter_ctx filter = seccomp_init(default_action);
    if (filter == NULL) {
        raise_error(-EINVAL, "seccomp_init");
        return NULL;
    }
    if (add_architectures(filter, architectures) < 0 || set_attributes(filter, attributes) < 0 ||
        add_rules(filter, rules) < 0)
        return NULL;
    return export_filter(filter);
}

static PyObject *resolve(PyObject *self, PyObject *args)
{
    const char *name;
    unsigned int architecture;
    if (!PyArg_ParseTuple(args, "sI", &name, &architecture))
        return NULL;
    (void)self;
    int number = seccomp_syscall_resolve_name_arch(architecture, name);
    /* Below -1 are libseccomp's own numbers for what another architecture has. */
    if (number < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(number);
}

static PyObject *native_architecture(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLong(seccomp_arch_native());
}

static PyObject *version(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    const struct scmp_version *found = seccomp_version();
    if (found == NULL) {
        raise_error(-EINVAL, "seccomp_version");
        return NULL;
    }
    return Py_BuildValue("(III)", found->major, found->minor, found->micro);
}

static PyObject *api_level(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLong(seccomp_api_get());
}

static PyObject *action_available(PyObject *self, PyObject *args)
{
    unsigned int action;
    if (!PyArg_ParseTuple(args, "I", &action))
        return NULL;
    (void)self;
    uint32_t asked = action & 0xffff0000U;
    return PyBool_FromLong(syscall(SYS_seccomp, KERNEL_SECCOMP_GET_ACTION_AVAIL, 0, &asked) == 0);
}

/* A kernel looks at the flags before the filter: a missing filter is EFAULT, an unknown flag EINVAL. */
static PyObject *flags_available(PyObject *self, PyObject *args)
{
    unsigned int flags;
    if (!PyArg_ParseTuple(args, "I", &flags))
        return NULL;
    (void)self;
    return PyBool_FromLong(syscall(SYS_seccomp, KERNEL_SECCOMP_SET_MODE_FILTER, flags, NULL) < 0 && errno == EFAULT);
}

static PyMethodDef methods[] = {
    {"compile_rules", compile_rules, METH_VARARGS,
     "compile_rules(default_action, architectures, attributes, rules) -> bytes"},
    {"resolve", resolve, METH_VARARGS, "resolve(name, architecture) -> number or None"},
    {"native_architecture", native_architecture, METH_NOARGS, "native_architecture() -> token"},
    {"version", version, METH_NOARGS, "version() -> (major, minor, micro)"},
    {"api_level", api_level, METH_NOARGS, "api_level() -> int"},
    {"action_available", action_available, METH_VARARGS, "action_available(action) -> bool"},
    {"flags_available", flags_available, METH_VARARGS, "flags_available(flags) -> bool"},
    {NULL, NULL, 0, NULL},
};

/* None, but their presence asks for multi-phase initialisation (PEP 489). */
static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_seccomp", .m_doc = "libseccomp's compiler.",
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit__seccomp(void);
PyMODINIT_FUNC PyInit__seccomp(void)
{
    return PyModuleDef_Init(&definition);
}
