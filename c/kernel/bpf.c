/* bpf(2), as far as device control on cgroup v2 needs it. */
#include "kernel.h"

#include <linux/bpf.h>
#include <string.h>

#define LOG_SIZE (64 * 1024)

static long bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* The last lines of the verifier's log say why; what stands before them is the program again. */
static const char *log_tail(char *log)
{
    size_t length = strlen(log);
    while (length > 0 && log[length - 1] == '\n')
        log[--length] = '\0';
    return length > 512 ? log + length - 512 : log;
}

/* Loads once more to learn the reason: a log buffer that is too small would fail a good program with ENOSPC. */
static PyObject *load_error(union bpf_attr *attributes)
{
    int number = errno;
    char *log = PyMem_Calloc(1, LOG_SIZE);
    if (log == NULL)
        return PyErr_NoMemory();
    attributes->log_buf = (uint64_t)(uintptr_t)log;
    attributes->log_size = LOG_SIZE;
    attributes->log_level = 1;
    CLOSED int fd = (int)bpf(BPF_PROG_LOAD, attributes);
    log[LOG_SIZE - 1] = '\0';
    errno = number;
    PyObject *result = kernel_error_detail("bpf", NULL, log_tail(log));
    PyMem_Free(log);
    return result;
}

static PyObject *kernel_bpf_prog_load(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"prog_type", "insns", "license", "name", "attach_type", NULL};
    unsigned int type, attach_type = 0;
    const char *instructions, *license = "GPL", *name = "";
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Iy#|ssI", names, &type, &instructions, &size, &license, &name,
                                     &attach_type))
        return NULL;
    (void)self;
    if (size % (Py_ssize_t)sizeof(struct bpf_insn) != 0)
        return PyErr_Format(PyExc_ValueError, "insns must be a multiple of 8 bytes, not %zd", size);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = type;
    attributes.insns = (uint64_t)(uintptr_t)instructions;
    attributes.insn_cnt = (uint32_t)((size_t)size / sizeof(struct bpf_insn));
    attributes.license = (uint64_t)(uintptr_t)license;
    attributes.expected_attach_type = attach_type;
    if (strlen(name) >= sizeof attributes.prog_name)
        return PyErr_Format(PyExc_ValueError, "name of a bpf program is longer than %zu",
                            sizeof attributes.prog_name - 1);
    memcpy(attributes.prog_name, name, strlen(name));
    long fd = bpf(BPF_PROG_LOAD, &attributes);
    return fd < 0 ? load_error(&attributes) : PyLong_FromLong(fd);
}

static PyObject *kernel_bpf_prog_attach(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"cgroup_fd", "prog_fd", "attach_type", "flags", "replace_fd", NULL};
    int cgroup_fd, prog_fd, replace_fd = 0;
    unsigned int attach_type, flags;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iiII|i", names, &cgroup_fd, &prog_fd, &attach_type, &flags,
                                     &replace_fd))
        return NULL;
    (void)self;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.target_fd = (uint32_t)cgroup_fd;
    attributes.attach_bpf_fd = (uint32_t)prog_fd;
    attributes.attach_type = attach_type;
    attributes.attach_flags = flags;
    attributes.replace_bpf_fd = (uint32_t)replace_fd;
    return kernel_none_result(bpf(BPF_PROG_ATTACH, &attributes), "bpf", NULL);
}

static PyObject *kernel_bpf_prog_detach(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"cgroup_fd", "prog_fd", "attach_type", NULL};
    int cgroup_fd, prog_fd;
    unsigned int attach_type;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iiI", names, &cgroup_fd, &prog_fd, &attach_type))
        return NULL;
    (void)self;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.target_fd = (uint32_t)cgroup_fd;
    attributes.attach_bpf_fd = (uint32_t)prog_fd;
    attributes.attach_type = attach_type;
    return kernel_none_result(bpf(BPF_PROG_DETACH, &attributes), "bpf", NULL);
}

static PyObject *ids_list(const uint32_t *ids, uint32_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLong(ids[i]);
        if (id == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    return list;
}

static PyObject *kernel_bpf_prog_query(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"cgroup_fd", "attach_type", NULL};
    int cgroup_fd;
    unsigned int attach_type;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iI", names, &cgroup_fd, &attach_type))
        return NULL;
    (void)self;
    uint32_t ids[64]; /* BPF_CGROUP_MAX_PROGS */
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.query.target_fd = (uint32_t)cgroup_fd;
    attributes.query.attach_type = attach_type;
    attributes.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attributes.query.prog_cnt = sizeof ids / sizeof ids[0];
    if (bpf(BPF_PROG_QUERY, &attributes) < 0)
        return kernel_error("bpf");
    return ids_list(ids, attributes.query.prog_cnt);
}

static PyObject *kernel_bpf_prog_get_fd_by_id(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"prog_id", NULL};
    unsigned int id;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "I", names, &id))
        return NULL;
    (void)self;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_id = id;
    return kernel_fd_result(bpf(BPF_PROG_GET_FD_BY_ID, &attributes), "bpf", NULL);
}

PyMethodDef kernel_bpf_methods[] = {
    METHOD(bpf_prog_load, "bpf_prog_load(prog_type, insns, license='GPL', name='', attach_type=0) -> fd"),
    METHOD(bpf_prog_attach, "bpf_prog_attach(cgroup_fd, prog_fd, attach_type, flags, replace_fd=0)"),
    METHOD(bpf_prog_detach, "bpf_prog_detach(cgroup_fd, prog_fd, attach_type)"),
    METHOD(bpf_prog_query, "bpf_prog_query(cgroup_fd, attach_type) -> ids"),
    METHOD(bpf_prog_get_fd_by_id, "bpf_prog_get_fd_by_id(prog_id) -> fd"),
    METHODS_END,
};
