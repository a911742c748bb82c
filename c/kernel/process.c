/* Processes: pidfds, prctl, limits, and spawn. */
#include "kernel.h"

#include <fcntl.h>
#include <linux/ioctl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/wait.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* linux/pidfd.h of 6.13 (PIDFD_GET_INFO) and 6.15 (PIDFD_INFO_EXIT); the kernel fills in as much as the size asks for.
 */
#define INFO_PID (1ULL << 0)
#define INFO_EXIT (1ULL << 3)

struct info {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, uids_and_gids[8];
    int32_t exit_code;
};

_Static_assert(sizeof(struct info) == 64, "PIDFD_INFO_SIZE_VER0");

#define GET_INFO _IOWR(0xFF, 11, struct info)

#define SPAWN_STACK_SIZE (64 * 1024)

static PyObject *kernel_pidfd_open(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"pid", "flags", NULL};
    int pid;
    unsigned int flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|I", names, &pid, &flags))
        return NULL;
    (void)self;
    return kernel_fd_result(syscall(SYS_pidfd_open, pid, flags), "pidfd_open", NULL);
}

static PyObject *kernel_pidfd_send_signal(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"pidfd", "sig", NULL};
    int pidfd, number;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ii", names, &pidfd, &number))
        return NULL;
    (void)self;
    return kernel_none_result(syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0), "pidfd_send_signal", NULL);
}

static PyObject *kernel_pidfd_info(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"pidfd", NULL};
    int pidfd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i", names, &pidfd))
        return NULL;
    (void)self;
    struct info info = {.mask = INFO_PID | INFO_EXIT};
    if (ioctl(pidfd, GET_INFO, &info) < 0)
        return kernel_error("ioctl");
    if (!(info.mask & INFO_EXIT))
        Py_RETURN_NONE;
    return PyLong_FromLong(info.exit_code);
}

static PyObject *kernel_reboot(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"command", NULL};
    unsigned int command;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "I", names, &command))
        return NULL;
    (void)self;
    return kernel_none_result(reboot((int)command), "reboot", NULL);
}

static PyObject *kernel_prctl(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"option", "a2", "a3", "a4", "a5", NULL};
    int option;
    unsigned long a2 = 0, a3 = 0, a4 = 0, a5 = 0;
    PyObject *second = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|Okkk", names, &option, &second, &a3, &a4, &a5))
        return NULL;
    (void)self;
    if (second != NULL && PyBytes_Check(second)) {
        a2 = (unsigned long)PyBytes_AS_STRING(second); /* PR_SET_NAME and the like take a string */
    } else if (second != NULL) {
        a2 = PyLong_AsUnsignedLongMask(second);
        if (PyErr_Occurred())
            return NULL;
    }
    int result = prctl(option, a2, a3, a4, a5);
    if (result < 0)
        return kernel_error("prctl");
    return PyLong_FromLong(result);
}

static PyObject *kernel_prlimit(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"pid", "resource", "soft", "hard", NULL};
    int pid, resource;
    unsigned long long soft, hard;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iiKK", names, &pid, &resource, &soft, &hard))
        return NULL;
    (void)self;
    struct limits {
        uint64_t soft, hard;
    } limits = {soft, hard}, before;
    if (syscall(SYS_prlimit64, pid, resource, &limits, &before) < 0)
        return kernel_error("prlimit");
    return Py_BuildValue("(KK)", (unsigned long long)before.soft, (unsigned long long)before.hard);
}

static PyObject *kernel_close_range(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"first", "last", "flags", NULL};
    unsigned int first, last, flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "II|I", names, &first, &last, &flags))
        return NULL;
    (void)self;
    return kernel_none_result(syscall(SYS_close_range, first, last, flags), "close_range", NULL);
}

/* Everything that the spawned child needs, prepared before it exists: it may only make system calls. */
struct spawn {
    int exe_fd;
    const char *path; /* executed in place of exe_fd where given */
    int close_others;
    char **argv;
    char **env;
    int *sources; /* pairs: sources[i] becomes targets[i] */
    int *targets;
    Py_ssize_t pairs;
    int above; /* the first fd number beyond every target */
    int error; /* errno of the step that failed; shared memory, as the child runs in the parent's */
    const char *failed;
};

static void spawn_free(struct spawn *spawn)
{
    PyMem_Free(spawn->argv);
    PyMem_Free(spawn->env);
    PyMem_Free(spawn->sources);
    PyMem_Free(spawn->targets);
}

static void reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        (void)sigaction(number, &standard, NULL); /* KILL, STOP and glibc's own two refuse, rightly */
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int spawn_failed(struct spawn *spawn, const char *name)
{
    spawn->error = errno;
    spawn->failed = name;
    return 127;
}

/* First every source moves out of the way of every target: so maps may overlap, swap, or name one fd on both sides. */
static int move_fds(struct spawn *spawn, int *exe_fd)
{
    *exe_fd = spawn->path ? -1 : fcntl(spawn->exe_fd, F_DUPFD_CLOEXEC, spawn->above);
    if (*exe_fd < 0 && !spawn->path)
        return -1;
    for (Py_ssize_t i = 0; i < spawn->pairs; i++) {
        spawn->sources[i] = fcntl(spawn->sources[i], F_DUPFD_CLOEXEC, spawn->above);
        if (spawn->sources[i] < 0)
            return -1;
    }
    /* the child has a table of its own, so nothing changes for the parent */
    if (spawn->close_others && syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < spawn->pairs; i++)
        if (dup2(spawn->sources[i], spawn->targets[i]) < 0)
            return -1;
    return 0;
}

static int spawn_child(void *argument)
{
    struct spawn *spawn = argument;
    int exe_fd;
    if (move_fds(spawn, &exe_fd) < 0)
        return spawn_failed(spawn, "dup2");
    reset_signals();
    if (spawn->path) {
        (void)execve(spawn->path, spawn->argv, spawn->env);
        return spawn_failed(spawn, "execve");
    }
    (void)syscall(SYS_execveat, exe_fd, "", spawn->argv, spawn->env, AT_EMPTY_PATH);
    return spawn_failed(spawn, "execveat");
}

/* A NULL-ended array of pointers into the strings of a sequence, which `keep` holds alive; NULL on failure. */
static char **string_array(PyObject *sequence, PyObject *keep)
{
    RELEASED PyObject *fast = PySequence_Fast(sequence, "argv and env must be sequences of str or bytes");
    if (fast == NULL)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    char **array = PyMem_Calloc((size_t)count + 1, sizeof *array);
    if (array == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        RELEASED PyObject *string = NULL;
        if (!PyUnicode_FSConverter(PySequence_Fast_GET_ITEM(fast, i), &string) || PyList_Append(keep, string) < 0) {
            PyMem_Free(array);
            return NULL;
        }
        array[i] = PyBytes_AS_STRING(string);
    }
    return array;
}

static int parse_fd_map(PyObject *map, struct spawn *spawn)
{
    RELEASED PyObject *fast = PySequence_Fast(map, "fd_map must be a sequence of (source, target)");
    if (fast == NULL)
        return -1;
    spawn->pairs = PySequence_Fast_GET_SIZE(fast);
    spawn->sources = PyMem_Calloc((size_t)spawn->pairs + 1, sizeof(int));
    spawn->targets = PyMem_Calloc((size_t)spawn->pairs + 1, sizeof(int));
    if (spawn->sources == NULL || spawn->targets == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    spawn->above = 3;
    for (Py_ssize_t i = 0; i < spawn->pairs; i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(fast, i);
        if (!PyTuple_Check(pair)) {
            PyErr_SetString(PyExc_TypeError, "fd_map must hold tuples of (source, target)");
            return -1;
        }
        if (!PyArg_ParseTuple(pair, "ii", &spawn->sources[i], &spawn->targets[i]))
            return -1;
        if (spawn->targets[i] >= spawn->above)
            spawn->above = spawn->targets[i] + 1;
    }
    return 0;
}

/* clone(2) as posix_spawn uses it: the parent sleeps until execve, so nothing is copied, whatever its size. */
static int run_spawn(struct spawn *spawn, int *pidfd)
{
    void *stack = mmap(NULL, SPAWN_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        spawn->error = errno;
        spawn->failed = "mmap";
        return -1;
    }
    /* A handler of the parent must not run in the child, which shares its memory. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    *pidfd = -1;
    int pid = clone(spawn_child, (char *)stack + SPAWN_STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
                    spawn, pidfd);
    if (pid < 0) {
        spawn->error = errno;
        spawn->failed = "clone";
    }
    (void)munmap(stack, SPAWN_STACK_SIZE);
    if (pid >= 0 && spawn->error != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        kernel_close(pidfd);
        pid = -1;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static PyObject *kernel_spawn(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"exe", "argv", "env", "fd_map", "close_others", NULL};
    __attribute__((cleanup(spawn_free))) struct spawn spawn = {0};
    PyObject *exe, *argv, *env, *fd_map;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOO|p", names, &exe, &argv, &env, &fd_map, &spawn.close_others))
        return NULL;
    RELEASED PyObject *path = NULL;
    if (PyLong_Check(exe)) {
        if (!PyArg_Parse(exe, "i", &spawn.exe_fd))
            return NULL;
    } else {
        if (!PyUnicode_FSConverter(exe, &path))
            return NULL;
        spawn.path = PyBytes_AS_STRING(path);
    }
    (void)self;
    RELEASED PyObject *keep = PyList_New(0);
    if (keep == NULL)
        return NULL;
    spawn.argv = string_array(argv, keep);
    if (spawn.argv == NULL)
        return NULL;
    spawn.env = string_array(env, keep);
    if (spawn.env == NULL || parse_fd_map(fd_map, &spawn) < 0)
        return NULL;
    CLOSED int pidfd = -1;
    int pid;
    /* execve of a file on a slow disk holds up this thread alone */
    WITHOUT_GIL(pid = run_spawn(&spawn, &pidfd));
    if (pid < 0) {
        errno = spawn.error;
        return kernel_error_path(spawn.failed, spawn.argv[0]);
    }
    PyObject *result = Py_BuildValue("(ii)", pid, pidfd);
    if (result != NULL)
        pidfd = -1;
    return result;
}

PyMethodDef kernel_process_methods[] = {
    METHOD(pidfd_open, "pidfd_open(pid, flags=0) -> fd"),
    METHOD(pidfd_send_signal, "pidfd_send_signal(pidfd, sig)"),
    METHOD(pidfd_info, "pidfd_info(pidfd) -> wait status or None"),
    METHOD(prctl, "prctl(option, a2=0, a3=0, a4=0, a5=0) -> int"),
    METHOD(prlimit, "prlimit(pid, resource, soft, hard) -> (soft, hard) before"),
    METHOD(reboot, "reboot(command)"),
    METHOD(close_range, "close_range(first, last, flags=0)"),
    METHOD(spawn, "spawn(exe, argv, env, fd_map, close_others=False) -> (pid, pidfd)"),
    METHODS_END,
};
