/*
 * The container process: what it does to itself between its birth and execve, in the order of its life.
 *
 *   engine                    container process
 *   GO                     ─▶ cgroups v1; root of its user namespace; cgroup and time namespace
 *                          ◀─ NAMESPACES_READY
 *   (the setup worker makes the rootfs)
 *   SETTINGS               ─▶ the sequence in `finalise`
 *                          ◀─ CONSOLE, if a console is allocated here
 *   ACKNOWLEDGED           ─▶
 *                          ◀─ SECCOMP_LISTENER, if the filter has one
 *   ACKNOWLEDGED           ─▶
 *                          ◀─ PREPARED
 *   (somebody opens the fifo) startContainer hooks, execve: end of file on the socket
 *
 * At every wait the end of the engine is the end of this process, except at the fifo: there the container is `created`,
 * and the engine has left.
 */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "caps.h"
#include "cleanup.h"
#include "console.h"
#include "context.h"
#include "error.h"
#include "execve.h"
#include "fds.h"
#include "hooks.h"
#include "ids.h"
#include "kernel.h"
#include "keyring.h"
#include "limits.h"
#include "lsm.h"
#include "message.h"
#include "namespaces.h"
#include "procfs.h"
#include "seccomp.h"
#include "settings.h"
#include "signals.h"

static void wait_for_stage_0(int released)
{
    char byte;
    ssize_t count;

    do
        count = read(released, &byte, 1);
    while (count < 0 && errno == EINTR);
    if (count != 1)
        _exit(1); /* stage 0 failed, and said so itself */
    close(released);
}

/*
 * A thread that writes 0 to `tasks` moves itself, and only then the kernel need not hold off every fork on the machine:
 * a process that is moved by somebody else waits for an RCU grace period, 8 ms (Linux 6.18, cgroup_procs_write_start).
 * The rights that count are those of the engine, which opened the file.
 */
static void enter_cgroup(const struct context *context, int tasks)
{
    if (write_at_once(tasks, "0", 1) == 0)
        return;
    int number = errno;
    auto_free char *link = format_text("self/fd/%d", tasks);
    char path[PATH_MAX];
    ssize_t length = readlinkat(context->proc, link, path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = '\0';
    fail(.step = "enter cgroup", .syscall = "write", .number = number, .path = path);
}

static void wait_for_go(const struct context *context)
{
    struct message message;
    struct attribute attribute;

    message_expect(context->socket, MSG_GO, &message);
    log_step("wait for go");
    struct cursor cursor = message_attributes(&message);
    while (attribute_next(&cursor, &attribute)) {
        if (attribute.info->type != ATTR_CGROUP_TASKS_FD)
            fail(.kind = "ProtocolError", .step = "read go",
                 .message = format_text("%s does not belong in GO", attribute.info->name));
        auto_fd tasks = attribute_fd(&attribute, &message);
        enter_cgroup(context, tasks);
    }
    message_release(&message);
    if (!context->bootstrap.initial_affinity.size)
        reset_affinity();
    log_step("enter cgroups");
}

static void make_session(void)
{
    if (getsid(0) != getpid() && setsid() < 0)
        fail(.step = "make session", .syscall = "setsid", .number = errno);
}

static void become_namespace_root(struct context *context)
{
    const struct bootstrap *bootstrap = &context->bootstrap;
    const bool is_new = (bootstrap->clone_flags & CLONE_NEWUSER) != 0;

    if (!bootstrap_becomes_root_late(bootstrap))
        return;
    if (bootstrap->become_root)
        become_root(context->proc);
    if (is_new && context->unprivileged && bootstrap->become_root)
        reexec_process(context);
    /*
     * setns by pidfd asks for ptrace rights on this process, and a setup worker without privileges has them only while
     * it is dumpable. That opens nothing to a container where this is a new user namespace, with nobody else in it yet.
     */
    context->dumpable = is_new && context->unprivileged;
    set_dumpable(context->dumpable);
}

static void make_late_namespaces(const struct context *context)
{
    uint64_t flags = context->bootstrap.clone_flags & bootstrap_late_namespaces(&context->bootstrap);

    flags &= ~(uint64_t)CLONE_NEWTIME; /* needs its offsets */
    if (flags && unshare((int)flags) < 0)
        fail(.step = "make namespaces", .syscall = "unshare", .number = errno);
}

static _Noreturn void no_time_offsets(const char *syscall)
{
    fail(.step = "set time offsets", .syscall = syscall, .number = errno, .path = "/proc/self/timens_offsets",
         .json_path = ".linux.timeOffsets");
}

/*
 * With the ids that this program was executed with. Root of a user namespace would have to be dumpable to open it, and
 * in a pod's user and pid namespace there are others, who could trace it at that moment (CVE-2016-9962).
 */
static void open_time_offsets(struct context *context)
{
    if (!context->bootstrap.time_offsets || context->time_offsets >= 0)
        return;
    context->time_offsets = proc_open(context->proc, "self/timens_offsets", O_WRONLY);
    if (context->time_offsets < 0)
        no_time_offsets("open");
}

/* A new time namespace is only for children at first, and takes offsets only until somebody is in it. */
static void make_time_namespace(struct context *context)
{
    const char *text = context->bootstrap.time_offsets;

    if (!(context->bootstrap.clone_flags & CLONE_NEWTIME))
        return;
    if (unshare(CLONE_NEWTIME) < 0)
        fail(.step = "make time namespace", .syscall = "unshare", .number = errno);
    if (text && write_at_once(context->time_offsets, text, strlen(text)) < 0)
        no_time_offsets("write");
    close_fd(&context->time_offsets);
    auto_fd own = proc_open_link(context->proc, "ns", "time_for_children", O_RDONLY);
    if (own < 0 || setns(own, CLONE_NEWTIME) < 0)
        fail(.step = "enter time namespace", .syscall = own < 0 ? "open" : "setns", .number = errno);
}

/* -1 without a mount namespace of its own: entering the engine's anew would lead to its root, out of any chroot. */
static int keep_mount_namespace(const struct context *context)
{
    if (!namespaces_touch(&context->bootstrap, CLONE_NEWNS))
        return -1;
    int fd = proc_open_link(context->proc, "ns", "mnt", O_RDONLY);
    if (fd < 0)
        fail(.step = "keep mount namespace", .syscall = "open", .number = errno, .path = "/proc/self/ns/mnt");
    return fd;
}

static void leave_working_directory(void)
{
    if (chdir("/") < 0)
        fail(.step = "leave working directory", .syscall = "chdir", .number = errno, .path = "/");
}

static void send_plain(int socket, uint16_t type)
{
    struct writer writer = message_begin(type);

    if (!message_send(socket, &writer))
        quit();
}

static void enter_namespaces(struct context *context)
{
    open_time_offsets(context);
    if (context->bootstrap.new_session)
        make_session();
    make_late_namespaces(context);
    make_time_namespace(context);
    leave_working_directory();
}

static void receive_settings(const struct context *context, struct settings *settings)
{
    struct message message;

    message_expect(context->socket, MSG_SETTINGS, &message);
    log_step("wait for setup worker and settings");
    settings_read(&message, settings);
    message_release(&message);
    set_dumpable(false); /* the worker has been and gone */
}

/*
 * setns into the own mount namespace leads to its root and follows what is mounted over that. So it is right after a
 * pivot_root and after a rootfs that was moved over / (--no-pivot), which does not move this process's root along.
 */
static void enter_root(struct settings *settings, int *mount_namespace)
{
    if (settings->root >= 0) {
        if (fchdir(settings->root) < 0 || chroot(".") < 0)
            fail(.step = "enter rootfs", .syscall = "chroot", .number = errno);
    } else if (*mount_namespace >= 0 && setns(*mount_namespace, CLONE_NEWNS) < 0) {
        fail(.step = "enter rootfs", .syscall = "setns", .number = errno);
    }
    close_fd(&settings->root);
    close_fd(mount_namespace);
    leave_working_directory();
}

/* From here on nothing is open but what is needed, so that no step can let a container see a fd of the host. */
static void close_other_fds(const struct context *context, const struct settings *settings)
{
    int kept[] = {context->socket,        context->proc,  context->own_fds,
                  context->bootstrap.log, settings->fifo, settings->console_slave};

    fds_preserve(settings->preserve_fds, context->inherited_end);
    fds_close_all_but(context->proc, 3 + (int)settings->preserve_fds, kept, sizeof(kept) / sizeof(kept[0]));
}

static void set_parent_death_signal(const struct context *context, const struct settings *settings)
{
    struct pollfd polled = {context->socket, 0, 0};

    if (!settings->parent_death_signal)
        return;
    if (prctl(PR_SET_PDEATHSIG, settings->parent_death_signal, 0, 0, 0) < 0)
        fail(.step = "set parent death signal", .syscall = "prctl", .number = errno);
    /* a parent that died before this line sends no signal any more */
    if (poll(&polled, 1, 0) > 0 && polled.revents & POLLHUP)
        quit();
}

static void set_labels(const struct context *context, const struct settings *settings)
{
    if (settings->apparmor)
        lsm_set_apparmor(context->proc, settings->apparmor);
    if (settings->selinux)
        lsm_set_selinux(context->proc, settings->selinux);
}

static void set_no_new_privs(const struct settings *settings)
{
    if (settings->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail(.step = "set no_new_privs", .syscall = "prctl", .number = errno);
}

/* False: not permitted. Any other reason ends the process. */
static bool try_cwd(const char *cwd)
{
    if (chdir(cwd) == 0)
        return true;
    if (errno == EACCES || errno == EPERM)
        return false;
    fail(.syscall = "chdir", .number = errno, .path = cwd,
         .message = format_text("chdir to cwd (%s) set in config.json failed", quoted(cwd)));
}

static void change_cwd(const char *cwd)
{
    if (!try_cwd(cwd))
        fail(.syscall = "chdir", .number = EACCES, .path = cwd,
             .message = format_text("chdir to cwd (%s) set in config.json failed", quoted(cwd)));
}

/* CVE-2024-21626: a working directory reached through a fd of the host has no path below this root. */
static void verify_cwd(void)
{
    static char path[PATH_MAX + 16];

    /* the system call itself: it says "(unreachable)/..." where the C library makes ENOENT of it */
    long length = syscall(SYS_getcwd, path, sizeof(path));
    if (length < 0 && errno != ENOENT)
        fail(.step = "verify cwd", .syscall = "getcwd", .number = errno);
    if (length < 0 || path[0] != '/')
        fail(.message = "current working directory is outside of container mount namespace root -- possible container "
                        "breakout detected");
}

/*
 * The host's null device becomes the container's own, which is the same but for its mount: CRIU can't save a file of a
 * mount outside of the container. Where the image has something else in its place, the host's stays.
 */
static void reopen_null(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        struct stat status;
        if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3))
            continue;
        int flags = fcntl(fd, F_GETFL);
        /* O_NONBLOCK: an image's fifo of that name must not hold us up */
        auto_fd null = open("/dev/null", (flags & O_ACCMODE) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (null < 0 || fstat(null, &status) < 0 || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3)) {
            log_line("ignoring: fd %d stays the null device of the host", fd);
            continue;
        }
        if (fcntl(null, F_SETFL, flags & ~O_NONBLOCK) < 0 || dup3(null, fd, 0) < 0)
            fail(.step = "reopen the null device", .syscall = "dup3", .number = errno,
                 .message = format_text("fd %d", fd));
    }
}

/* As far as the filesystem lets it: what belongs to ids that are not mapped here stays as it is. */
static void give_stdio(uint32_t uid)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        struct stat status;
        if (fstat(fd, &status) < 0)
            continue; /* a closed stdio fd is the caller's wish */
        /* the host's /dev/null is not this container's to give away */
        if (status.st_uid == uid || (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)))
            continue;
        /* a file that the caller lets be read only: its owner could open it again for writing */
        if (S_ISREG(status.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
            continue;
        if (fchown(fd, uid, (gid_t)-1) == 0)
            continue;
        if (errno != EINVAL && errno != EPERM && errno != EROFS && errno != ENOSYS && errno != EOPNOTSUPP)
            fail(.step = "give stdio to the user", .syscall = "fchown", .number = errno,
                 .message = format_text("fd %d", fd));
        log_line("ignoring: fchown of fd %d: %s", fd, strerror(errno));
    }
}

static void set_umask(const struct settings *settings)
{
    if (settings->umask >= 0)
        umask((mode_t)settings->umask & 0777);
}

/* Who the process is: the only order in which each step still has the rights that it needs. */
static void change_identity(const struct context *context, const struct settings *settings)
{
    const uint32_t uid = settings->uid >= 0 ? (uint32_t)settings->uid : geteuid();
    const uint32_t gid = settings->gid >= 0 ? (uint32_t)settings->gid : getegid();
    bool changes = settings->uid >= 0 || settings->gid >= 0 || settings->set_groups;

    /* the working directory may let in root alone, or the user alone (a volume of his on a share that squashes root) */
    bool arrived = !settings->cwd || try_cwd(settings->cwd);
    reopen_null();
    give_stdio(uid);
    if (settings->set_capabilities) {
        caps_limit_bounding(settings->capabilities[CAP_SET_BOUNDING]);
        caps_keep();
    }
    if (changes)
        become_user(context->proc, uid, gid, settings->set_groups ? settings->groups : NULL, settings->group_count);
    if (!arrived)
        change_cwd(settings->cwd);
    if (settings->set_capabilities)
        caps_set(settings->capabilities);
    set_dumpable(false);
    verify_cwd();
}

/*
 * The order: first what the container's root and the engine's rights are needed for; then what the filter and the user
 * may not undo; the identity after everything that is privileged; what is looked up for the user, as the user.
 */
static char *finalise(struct context *context, struct settings *settings, int *mount_namespace)
{
    if (settings->new_session)
        make_session(); /* TIOCSCTTY is for session leaders */
    enter_root(settings, mount_namespace);
    log_step("enter the mount namespace's root");
    close_other_fds(context, settings);
    log_step("close other fds");
    if (settings->keyring)
        keyring_join(settings->keyring, settings->keyring_label, context->proc);
    log_step("make session keyring");
    console_set_up(settings, context->socket, context->proc);
    log_step("set up console");
    set_personality(settings);
    set_scheduler(settings);
    set_io_priority(settings);
    set_memory_policy(settings);
    set_affinity(&settings->affinity);
    log_step("set personality, scheduler, priority, memory policy, affinity");
    set_labels(context, settings); /* no_new_privs restricts some changes of label */
    set_rlimits(settings);         /* late, since a low limit binds the steps behind it */
    set_no_new_privs(settings);
    log_step("set labels, limits, no_new_privs");
    if (!settings->no_new_privs)
        seccomp_install(settings, context->socket); /* needs CAP_SYS_ADMIN, which the next line gives up */
    log_step("load filter that needs privileges");
    change_identity(context, settings);
    log_step("set capabilities, ids, groups, working directory");
    set_parent_death_signal(context, settings); /* the kernel clears it at every change of ids */
    set_umask(settings);
    return executable_find(settings);
}

/*
 * Blocks until `start` opens the other end. Through the kept procfs: the container may have none, or a false one.
 * A reader that leaves before the byte is written did not start anything, so the next one is waited for.
 * `start` reads until the fifo is closed, by execve at the latest, so it is kept open until then, and a startContainer
 * hook that fails is reported through it. -1 where there is no fifo.
 */
static int wait_for_start(const struct context *context, struct settings *settings)
{
    if (settings->fifo < 0)
        return -1;
    signals_end_the_wait();
    for (;;) {
        auto_free char *name = format_text("%d", settings->fifo);
        int fifo = context->own_fds >= 0 ? openat(context->own_fds, name, O_WRONLY | O_CLOEXEC)
                                         : proc_open_link(context->proc, "fd", name, O_WRONLY);
        if (fifo < 0 && errno == EINTR)
            continue;
        if (fifo < 0)
            fail(.step = "open exec fifo", .syscall = "open", .number = errno);
        if (write_at_once(fifo, "0", 1) == 0) {
            close_fd(&settings->fifo);
            report_to_pipe(fifo);
            return fifo;
        }
        if (errno != EPIPE)
            fail(.step = "write to exec fifo", .syscall = "write", .number = errno);
        close(fifo);
    }
}

void process_run(struct context *context, int released)
{
    prctl(PR_SET_NAME, "ctr-init:1");
    log_to(context->bootstrap.log, "ctr-init:1");
    log_step("begin");
    wait_for_stage_0(released);
    log_step("wait for stage 0");
    wait_for_go(context);
    open_time_offsets(context);
    become_namespace_root(context);
    process_continue(context);
}

void process_continue(struct context *context)
{
    struct settings settings;

    enter_namespaces(context);
    log_step("make cgroup, time and IPC namespaces");
    int mount_namespace = keep_mount_namespace(context);
    send_plain(context->socket, MSG_NAMESPACES_READY);
    log_line("in all namespaces");

    receive_settings(context, &settings);
    char *executable = finalise(context, &settings, &mount_namespace);
    /* a listener needs the engine, which leaves after PREPARED */
    /* nor may startContainer hooks, which are the image's own programs, run without the filter */
    bool filter_last = settings.no_new_privs && !seccomp_has_listener(&settings) && settings.hook_count == 0;
    if (settings.no_new_privs && !filter_last)
        seccomp_install(&settings, context->socket);
    /* whom `exec` brings in before the start may have the right to look at what is open here */
    if (settings.fifo >= 0 && context->own_fds >= 0)
        close_fd(&context->proc);
    log_line("prepared");
    log_step("find program, load filter");
    send_plain(context->socket, MSG_PREPARED);

    int fifo = wait_for_start(context, &settings);
    log_step("wait for start");
    hooks_run(&settings);
    log_step("startContainer hooks");
    if (fifo >= 0)
        report_to(-1); /* as under runc, an execve that fails is told of on the container's own stderr */
    log_line("execve %s", executable);
    /* close-on-exec is too late: old kernels make the process dumpable before they close (CVE-2016-9962) */
    close_fd(&context->proc);
    close_fd(&context->own_fds);
    close_fd(&context->bootstrap.log);
    log_to(-1, "");
    signals_reset();
    if (filter_last)
        seccomp_install(&settings, context->socket);
    executable_run(executable, &settings);
}
