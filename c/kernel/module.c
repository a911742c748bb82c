/* The module _kernel: the tables of the other files, and the numbers of the start-up protocol. */
#include "kernel.h"

#include "../nsexec/protocol.def"

struct number {
    const char *name;
    long value;
};

static const struct number messages[] = {
#define CTR_MESSAGE(name, number, meaning) {"MSG_" #name, number},
#include "../nsexec/protocol.def"
#undef CTR_MESSAGE
    {NULL, 0},
};

static const struct number attributes[] = {
#define CTR_ATTRIBUTE(name, number, kind, meaning) {"ATTR_" #name, number},
#include "../nsexec/protocol.def"
#undef CTR_ATTRIBUTE
    {NULL, 0},
};

/* Adds each number under its name, and the dict number -> name without the prefix under `dict_name`. */
static int add_numbers(PyObject *module, const struct number *numbers, size_t prefix, const char *dict_name)
{
    RELEASED PyObject *by_number = PyDict_New();
    if (by_number == NULL)
        return -1;
    for (; numbers->name != NULL; numbers++) {
        RELEASED PyObject *key = PyLong_FromLong(numbers->value);
        RELEASED PyObject *name = PyUnicode_FromString(numbers->name + prefix);
        if (key == NULL || name == NULL || PyDict_SetItem(by_number, key, name) < 0 ||
            PyModule_AddIntConstant(module, numbers->name, numbers->value) < 0)
            return -1;
    }
    return PyModule_AddObjectRef(module, dict_name, by_number);
}

static int fill_module(PyObject *module)
{
    PyMethodDef *tables[] = {kernel_mount_methods,  kernel_namespace_methods, kernel_process_methods,
                             kernel_socket_methods, kernel_memfd_methods,     kernel_signal_methods,
                             kernel_bpf_methods,    kernel_inotify_methods};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    if (PyModule_AddIntConstant(module, "PROTOCOL_VERSION", CTR_PROTOCOL_VERSION) < 0 ||
        PyModule_AddIntConstant(module, "INLINE_MAX", CTR_INLINE_MAX) < 0)
        return -1;
    if (add_numbers(module, messages, sizeof "MSG_" - 1, "MESSAGE_NAMES") < 0)
        return -1;
    return add_numbers(module, attributes, sizeof "ATTR_" - 1, "ATTRIBUTE_NAMES");
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "Thin wrappers of the system calls that Python lacks, and the numbers of the start-up protocol.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kernel(void);
PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
