/*
 * The physical limit of `run`: the kernel's work for a container, asked for by the least C that does it.
 *
 * usage: floor [-s FILTER] [-b SOURCE:DESTINATION]… [-y NAME=VALUE]… [-c CAPABILITIES] [-w] ROOTFS CGROUP PROGRAM
 * [ARG…]
 *
 * It makes what `run` makes of the default configuration: cgroups with the device rules, namespaces, mounts, device
 * nodes, pivot_root, masks, capabilities, limits; then it executes the program, waits for its end, and removes the
 * cgroups. What it leaves out is everything that a runtime has to think about: it reads no configuration, keeps no
 * state, can't be stopped in between, trusts the image and its neighbours, and an error merely ends it.
 * The cgroups are the v1 hierarchies below /sys/fs/cgroup, or cgroup v2 where that is mounted there.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CGROUP_TOP "/sys/fs/cgroup"
#define CGROUP2_MAGIC 0x63677270
#define UMOUNT_DETACH 2
#define ENTRIES_MAX 64

/* sys/mount.h and linux/mount.h do not go together in every C library */
int umount2(const char *target, int flags);

struct options {
    const char *rootfs, *cgroup;
    struct sock_fprog filter;
    const char *binds[ENTRIES_MAX], *sysctls[ENTRIES_MAX];
    size_t bind_count, sysctl_count;
    uint64_t capabilities;
    bool writable, unified;
};

static const char *const hierarchies[] = {"cpu",     "cpuacct", "cpuset", "memory", "devices",
                                          "freezer", "blkio",   "pids",   "systemd"};
static const char *const masked[] = {
    "/proc/acpi",        "/proc/asound",      "/proc/kcore",         "/proc/keys",    "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/latency_stats", "/sys/firmware", "/proc/scsi"};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const struct {
    const char *name;
    unsigned int major, minor;
} devices[] = {{"null", 1, 3}, {"random", 1, 8}, {"full", 1, 7}, {"tty", 5, 0}, {"zero", 1, 5}, {"urandom", 1, 9}};
static const char *const device_rules[] = {"c *:* m",   "b *:* m",   "c 1:3 rwm", "c 1:8 rwm",   "c 1:7 rwm",
                                           "c 5:0 rwm", "c 1:5 rwm", "c 1:9 rwm", "c 136:* rwm", "c 5:2 rwm"};

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static long checked(long result, const char *what)
{
    if (result < 0)
        die(what);
    return result;
}

/* A path below the cgroup of one hierarchy; good until the next call. */
static const char *cgroup_path(const struct options *options, const char *hierarchy, const char *file)
{
    static char path[4096];

    snprintf(path, sizeof(path), CGROUP_TOP "/%s/%s/%s", options->unified ? "" : hierarchy, options->cgroup, file);
    return path;
}

static void write_file(const char *path, const char *text)
{
    int fd = (int)checked(open(path, O_WRONLY | O_CLOEXEC), path);

    checked(write(fd, text, strlen(text)), path);
    close(fd);
}

static bool has_hierarchy(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), CGROUP_TOP "/%s", name);
    return access(path, F_OK) == 0;
}

/* A new cpuset has no CPUs, and nobody may enter it. */
static void copy_cpuset(const struct options *options, const char *file)
{
    char text[4096], parent[4096];

    snprintf(parent, sizeof(parent), "%s", cgroup_path(options, "cpuset", ".."));
    strncat(parent, "/", sizeof(parent) - strlen(parent) - 1);
    strncat(parent, file, sizeof(parent) - strlen(parent) - 1);
    int fd = (int)checked(open(parent, O_RDONLY | O_CLOEXEC), parent);
    ssize_t length = checked(read(fd, text, sizeof(text) - 1), parent);
    close(fd);
    text[length] = '\0';
    write_file(cgroup_path(options, "cpuset", file), text);
}

static void make_cgroups_v1(const struct options *options)
{
    for (size_t i = 0; i < COUNT(hierarchies); i++)
        if (has_hierarchy(hierarchies[i]))
            checked(mkdir(cgroup_path(options, hierarchies[i], ""), 0755), "mkdir cgroup");
    if (has_hierarchy("cpuset")) {
        copy_cpuset(options, "cpuset.cpus");
        copy_cpuset(options, "cpuset.mems");
    }
    if (has_hierarchy("devices")) {
        write_file(cgroup_path(options, "devices", "devices.deny"), "a");
        for (size_t i = 0; i < COUNT(device_rules); i++)
            write_file(cgroup_path(options, "devices", "devices.allow"), device_rules[i]);
    }
}

static long bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

#define LOAD(register, offset)                                                                                         \
    {                                                                                                                  \
        .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = register, .src_reg = 1, .off = offset                            \
    }
#define JUMP(operation, register, value, distance)                                                                     \
    {                                                                                                                  \
        .code = BPF_JMP | operation | BPF_K, .dst_reg = register, .imm = value, .off = distance                        \
    }
#define RETURN(value)                                                                                                  \
    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = value},                                                               \
    {                                                                                                                  \
        .code = BPF_JMP | BPF_EXIT                                                                                     \
    }
/* a character device of this number may be used */
#define ALLOW(major, minor) JUMP(BPF_JNE, 4, major, 3), JUMP(BPF_JNE, 5, minor, 2), RETURN(1)

/* Device rules on cgroup v2 are a program; this one says what device_rules say. */
static void limit_devices(int cgroup)
{
    static const struct bpf_insn program[] = {
        LOAD(2, 0),
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 3, .src_reg = 2},
        {.code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = 2, .imm = 0xffff},
        {.code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = 3, .imm = 16},
        LOAD(4, 4),
        LOAD(5, 8),
        JUMP(BPF_JNE, 3, BPF_DEVCG_ACC_MKNOD, 2),
        RETURN(1),
        JUMP(BPF_JEQ, 2, BPF_DEVCG_DEV_CHAR, 2),
        RETURN(0),
        ALLOW(1, 3),
        ALLOW(1, 8),
        ALLOW(1, 7),
        ALLOW(5, 0),
        ALLOW(1, 5),
        ALLOW(1, 9),
        ALLOW(5, 2),
        JUMP(BPF_JNE, 4, 136, 2),
        RETURN(1),
        RETURN(0),
    };
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                                 .insn_cnt = COUNT(program),
                                 .insns = (uintptr_t)program,
                                 .license = (uintptr_t) "GPL"};

    int loaded = (int)checked(bpf(BPF_PROG_LOAD, &attributes), "load device program");
    memset(&attributes, 0, sizeof(attributes));
    attributes.target_fd = (uint32_t)cgroup;
    attributes.attach_bpf_fd = (uint32_t)loaded;
    attributes.attach_type = BPF_CGROUP_DEVICE;
    attributes.attach_flags = BPF_F_ALLOW_MULTI;
    checked(bpf(BPF_PROG_ATTACH, &attributes), "attach device program");
    close(loaded);
}

static void remove_cgroups(const struct options *options)
{
    if (options->unified) {
        checked(rmdir(cgroup_path(options, "", "")), "rmdir cgroup");
        return;
    }
    for (size_t i = 0; i < COUNT(hierarchies); i++)
        if (has_hierarchy(hierarchies[i]))
            checked(rmdir(cgroup_path(options, hierarchies[i], "")), "rmdir cgroup");
}

/* A mount of a new filesystem instance; `data` is pairs of a key and a value, NULL for a flag. */
static int new_mount(const char *type, const char *const data[], unsigned int attributes)
{
    int context = (int)checked(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type);

    for (size_t i = 0; data && data[i]; i += 2)
        checked(syscall(SYS_fsconfig, context, data[i + 1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, data[i],
                        data[i + 1], 0),
                data[i]);
    checked(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
    int mounted = (int)checked(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes), type);
    close(context);
    return mounted;
}

static int copy_of(const char *path, unsigned int recursive)
{
    return (int)checked(syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive), path);
}

static void set_attributes(int mounted, uint64_t attributes, unsigned int flags)
{
    struct mount_attr change = {.attr_set = attributes};

    checked(syscall(SYS_mount_setattr, mounted, "", AT_EMPTY_PATH | flags, &change, sizeof(change)), "mount_setattr");
}

static void attach(int mounted, const char *path)
{
    checked(syscall(SYS_move_mount, mounted, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
}

#define NO_SUID_EXEC (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
#define NO_SUID_EXEC_DEV (NO_SUID_EXEC | MOUNT_ATTR_NODEV)

static void mount_cgroups(const struct options *options)
{
    if (options->unified) {
        attach(new_mount("cgroup2", NULL, NO_SUID_EXEC_DEV | MOUNT_ATTR_RDONLY), "sys/fs/cgroup");
        return;
    }
    const char *const mode[] = {"mode", "755", NULL};
    int top = new_mount("tmpfs", mode, NO_SUID_EXEC_DEV);
    attach(top, "sys/fs/cgroup");
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char target[64];
        if (!has_hierarchy(hierarchies[i]))
            continue;
        snprintf(target, sizeof(target), "sys/fs/cgroup/%s", hierarchies[i]);
        checked(mkdir(target, 0755), target);
        int tree = copy_of(cgroup_path(options, hierarchies[i], ""), 0);
        set_attributes(tree, NO_SUID_EXEC_DEV | MOUNT_ATTR_RDONLY, 0);
        attach(tree, target);
        close(tree);
    }
    set_attributes(top, MOUNT_ATTR_RDONLY, 0);
    close(top);
}

static void mount_default(void)
{
    const char *const dev[] = {"mode", "755", "size", "65536k", NULL};
    const char *const pts[] = {"newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL};
    const char *const shm[] = {"source", "shm", "mode", "1777", "size", "65536k", NULL};
    const char *const read_only_flag[] = {"ro", NULL, NULL};
    const struct {
        const char *type, *path;
        const char *const *data;
        unsigned int attributes;
    } mounts[] = {
        {"proc", "proc", NULL, 0},
        {"tmpfs", "dev", dev, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME},
        {"devpts", "dev/pts", pts, NO_SUID_EXEC},
        {"tmpfs", "dev/shm", shm, NO_SUID_EXEC_DEV},
        {"mqueue", "dev/mqueue", NULL, NO_SUID_EXEC_DEV},
        {"sysfs", "sys", read_only_flag, NO_SUID_EXEC_DEV | MOUNT_ATTR_RDONLY},
    };

    for (size_t i = 0; i < COUNT(mounts); i++) {
        if (strncmp(mounts[i].path, "dev/", 4) == 0)
            checked(mkdir(mounts[i].path, 0755), mounts[i].path);
        int mounted = new_mount(mounts[i].type, mounts[i].data, mounts[i].attributes);
        attach(mounted, mounts[i].path);
        close(mounted);
    }
}

static void fill_dev(void)
{
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
                                           {"/proc/kcore", "dev/core"},       {"pts/ptmx", "dev/ptmx"}};
    char path[64];

    for (size_t i = 0; i < COUNT(devices); i++) {
        snprintf(path, sizeof(path), "dev/%s", devices[i].name);
        checked(mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), path);
    }
    for (size_t i = 0; i < COUNT(links); i++)
        checked(symlink(links[i][0], links[i][1]), links[i][1]);
}

static void mount_binds(const struct options *options)
{
    for (size_t i = 0; i < options->bind_count; i++) {
        char source[4096];
        snprintf(source, sizeof(source), "%s", options->binds[i]);
        char *colon = strchr(source, ':');
        if (!colon)
            die("-b SOURCE:DESTINATION");
        *colon = '\0';
        int tree = copy_of(source, AT_RECURSIVE);
        attach(tree, colon + 2); /* relative to the rootfs */
        close(tree);
    }
}

static void cover(void)
{
    int empty = -1;

    for (size_t i = 0; i < COUNT(read_only); i++) {
        if (access(read_only[i], F_OK) < 0)
            continue;
        int tree = copy_of(read_only[i], AT_RECURSIVE);
        set_attributes(tree, MOUNT_ATTR_RDONLY, 0);
        attach(tree, read_only[i]);
        close(tree);
    }
    for (size_t i = 0; i < COUNT(masked); i++) {
        struct stat status;
        if (stat(masked[i], &status) < 0)
            continue;
        if (!S_ISDIR(status.st_mode)) {
            int tree = copy_of("/dev/null", 0);
            attach(tree, masked[i]);
            close(tree);
        } else if (empty < 0) {
            empty = new_mount("tmpfs", NULL, MOUNT_ATTR_RDONLY);
            attach(empty, masked[i]);
        } else {
            int tree = (int)checked(syscall(SYS_open_tree, empty, "", OPEN_TREE_CLONE | AT_EMPTY_PATH), "open_tree");
            attach(tree, masked[i]);
            close(tree);
        }
    }
}

static void bring_up_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = (int)checked(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");

    checked(ioctl(fd, SIOCSIFFLAGS, &request), "bring up loopback");
    close(fd);
}

static void write_sysctls(const struct options *options)
{
    for (size_t i = 0; i < options->sysctl_count; i++) {
        char path[4096];
        const char *equals = strchr(options->sysctls[i], '=');
        if (!equals)
            die("-y NAME=VALUE");
        int length =
            snprintf(path, sizeof(path), "proc/sys/%.*s", (int)(equals - options->sysctls[i]), options->sysctls[i]);
        for (int at = 9; at < length; at++)
            if (path[at] == '.')
                path[at] = '/';
        write_file(path, equals + 1);
    }
}

static void set_up_namespaces(const struct options *options)
{
    struct mount_attr slave = {.propagation = MS_SLAVE};

    checked(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &slave, sizeof(slave)), "rslave");
    int root = copy_of(options->rootfs, AT_RECURSIVE);
    attach(root, options->rootfs);
    checked(fchdir(root), options->rootfs);
    bring_up_loopback();
    mount_default();
    mount_cgroups(options);
    mount_binds(options);
    fill_dev();
    write_sysctls(options);
    checked(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    checked(umount2(".", UMOUNT_DETACH), "umount");
    checked(chdir("/"), "chdir");
    if (!options->writable)
        set_attributes(root, MOUNT_ATTR_RDONLY, 0);
    close(root);
    checked(sethostname("runc", 4), "sethostname");
    cover();
}

static void limit_capabilities(uint64_t mask)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (!(mask >> capability & 1))
            checked(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "drop capability");
    for (int half = 0; half < 2; half++)
        data[half].effective = data[half].permitted = (uint32_t)(mask >> (32 * half));
    checked(syscall(SYS_capset, &header, data), "capset");
}

/* Before the root changes, behind which the file can't be reached. */
static struct sock_fprog read_filter(const char *path)
{
    static struct sock_filter instructions[4096];
    int fd = (int)checked(open(path, O_RDONLY | O_CLOEXEC), path);
    ssize_t length = checked(read(fd, instructions, sizeof(instructions)), path);

    close(fd);
    return (struct sock_fprog){.len = (unsigned short)((size_t)length / sizeof(instructions[0])),
                               .filter = instructions};
}

/* Docker's configuration has a filter and no no_new_privs, the default one the reverse. */
static void finalise(const struct options *options)
{
    const struct rlimit files = {1024, 1024};

    checked(setsid(), "setsid");
    checked(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "floor"), "keyctl");
    checked(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    if (options->filter.len)
        checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &options->filter),
                "seccomp");
    else
        checked(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    limit_capabilities(options->capabilities);
}

/* The container's process, from its birth to execve. */
_Noreturn static void contain(const struct options *options, const int *tasks, size_t task_count, char *const argv[])
{
    for (size_t i = 0; i < task_count; i++)
        checked(write(tasks[i], "0", 1), "enter cgroup");
    if (options->unified)
        checked(unshare(CLONE_NEWCGROUP), "unshare");
    set_up_namespaces(options);
    finalise(options);
    checked(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
    execvp(argv[0], argv);
    die(argv[0]);
}

static int run(struct options *options, char *const argv[])
{
    struct clone_args arguments = {.flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS,
                                   .exit_signal = SIGCHLD};
    int tasks[COUNT(hierarchies)], status;
    size_t task_count = 0;

    if (options->unified) {
        checked(mkdir(cgroup_path(options, "", ""), 0755), "mkdir cgroup");
        int cgroup = (int)checked(open(cgroup_path(options, "", ""), O_PATH | O_DIRECTORY | O_CLOEXEC), "open cgroup");
        int readable =
            (int)checked(open(cgroup_path(options, "", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open cgroup");
        limit_devices(readable);
        close(readable);
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    } else {
        make_cgroups_v1(options);
        for (size_t i = 0; i < COUNT(hierarchies); i++)
            if (has_hierarchy(hierarchies[i]))
                tasks[task_count++] = (int)checked(
                    open(cgroup_path(options, hierarchies[i], "tasks"), O_WRONLY | O_CLOEXEC), "open tasks");
    }
    pid_t pid = (pid_t)checked(syscall(SYS_clone3, &arguments, sizeof(arguments)), "clone3");
    if (pid == 0)
        contain(options, tasks, task_count, argv);
    checked(waitpid(pid, &status, 0), "waitpid");
    remove_cgroups(options);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    struct options options = {.capabilities = 1U << CAP_AUDIT_WRITE | 1U << CAP_KILL | 1U << CAP_NET_BIND_SERVICE};
    struct statfs top;
    int option;

    while ((option = getopt(argc, argv, "+s:b:y:c:w")) >= 0) {
        if (option == 's')
            options.filter = read_filter(optarg);
        else if (option == 'b' && options.bind_count < ENTRIES_MAX)
            options.binds[options.bind_count++] = optarg;
        else if (option == 'y' && options.sysctl_count < ENTRIES_MAX)
            options.sysctls[options.sysctl_count++] = optarg;
        else if (option == 'c')
            options.capabilities = strtoull(optarg, NULL, 0);
        else if (option == 'w')
            options.writable = true;
        else
            return 2;
    }
    if (argc - optind < 3) {
        fputs("usage: floor [-s FILTER] [-b SOURCE:DESTINATION] [-y NAME=VALUE] [-c CAPABILITIES] [-w] ROOTFS CGROUP "
              "PROGRAM [ARG...]\n",
              stderr);
        return 2;
    }
    options.rootfs = argv[optind];
    options.cgroup = argv[optind + 1];
    checked(statfs(CGROUP_TOP, &top), CGROUP_TOP);
    options.unified = top.f_type == CGROUP2_MAGIC;
    return run(&options, argv + optind + 2);
}
