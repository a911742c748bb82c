/* Holds on to something that a checkpoint has to deal with, then waits: holder KIND [PATH [SIZE]] */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int create(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0, path);
    return fd;
}

/* a connected unix stream socket */
static void hold_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    check(fd >= 0, "socket");
    check(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, path);
}

/* a file lock */
static void hold_lock(const char *path)
{
    check(flock(create(path), LOCK_EX | LOCK_NB) == 0, "flock");
}

/* a deleted file, open and mapped, of which another name is left */
static void hold_linked(const char *path)
{
    char other[4096];
    snprintf(other, sizeof(other), "%s.other", path);
    int fd = create(path);
    check(write(fd, "content\n", 8) == 8, "write");
    check(link(path, other) == 0, "link");
    check(unlink(path) == 0, "unlink");
    check(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED, "mmap");
    close(fd);
}

/* a deleted file without a name */
static void hold_ghost(const char *path, size_t size)
{
    int fd = create(path);
    char *bytes = calloc(1, size);
    memset(bytes, 'x', size);
    check(write(fd, bytes, size) == (ssize_t)size, "write");
    free(bytes);
    check(unlink(path) == 0, "unlink");
}

/* memory that stays as it is */
static void hold_memory(size_t size)
{
    static char *volatile bytes;
    bytes = malloc(size);
    check(bytes != NULL, "malloc");
    memset(bytes, 'x', size);
}

/* something that CRIU has no image for */
static void hold_ring(void)
{
    char parameters[256] = {0};
    check(syscall(SYS_io_uring_setup, 4, parameters) >= 0, "io_uring_setup");
}

/* a TCP socket that listens, and accepts nothing */
static void hold_listener(const char *port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
    check(listen(fd, 4) == 0, "listen");
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "";
    if (!strcmp(kind, "unix"))
        hold_unix(path);
    else if (!strcmp(kind, "lock"))
        hold_lock(path);
    else if (!strcmp(kind, "linked"))
        hold_linked(path);
    else if (!strcmp(kind, "ghost"))
        hold_ghost(path, argc > 3 ? (size_t)atol(argv[3]) : 1);
    else if (!strcmp(kind, "listen"))
        hold_listener(path);
    else if (!strcmp(kind, "memory"))
        hold_memory((size_t)atol(path));
    else if (!strcmp(kind, "ring"))
        hold_ring();
    else
        return 2;
    close(open("/dev/shm/ready", O_WRONLY | O_CREAT, 0600));
    for (;;)
        pause();
}
