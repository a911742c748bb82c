#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"

#define INLINE_MAX (64 * 1024)
#define MESSAGE_MAX (16 * 1024 * 1024)

/* How long to wait for room in the queue of a socket that nobody accepts from. */
#define CONNECT_LIMIT_SECONDS 1

/* Fds of ours stay clear of the low numbers: those may be the caller's, to be handed on with --preserve-fds. */
static const int high_numbers[] = {512, 128, 32, 3};

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 0x0001
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#define F_SEAL_WRITE 0x0008
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* Moves the fd; where the limit of open files is lower than the number wished for, less high. */
static int move_high(int fd)
{
    int moved = -1;

    for (size_t i = 0; moved < 0 && i < sizeof(high_numbers) / sizeof(*high_numbers); i++)
        moved = fcntl(fd, F_DUPFD_CLOEXEC, high_numbers[i]);
    int number = errno;
    close(fd);
    errno = number;
    return moved;
}

static bool limit_sending(int socket, time_t seconds)
{
    struct timeval limit = {.tv_sec = seconds};

    return setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0;
}

/* Whoever listens there is told everything and has its file executed: it must be somebody who may do so anyway. */
static bool check_peer(int socket)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    errno = EPERM;
    return false;
}

int wire_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    auto_fd connection = fd < 0 ? -1 : move_high(fd);
    if (connection < 0 || !limit_sending(connection, CONNECT_LIMIT_SECONDS))
        return -1;
    if (connect(connection, (const struct sockaddr *)&address, sizeof(address)) < 0 || !check_peer(connection))
        return -1;
    return limit_sending(connection, 0) ? take_fd(&connection) : -1;
}

static bool send_datagram(int socket, const void *data, size_t size, const int *fds, size_t count)
{
    char control[CMSG_SPACE(sizeof(int) * FDS_MAX)] __attribute__((aligned(8))) = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * count);
    }
    do
        sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

static int sealed_memfd(const struct buffer *message)
{
    /* MFD_NOEXEC_SEAL is of Linux 6.3; vm.memfd_noexec may ask for it */
    int created = memfd_create("ctr-message", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (created < 0 && errno == EINVAL)
        created = memfd_create("ctr-message", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    auto_fd fd = created;
    if (fd < 0)
        return -1;
    for (size_t done = 0; done < message->size;) {
        ssize_t written = write(fd, message->data + done, message->size - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        done += (size_t)written;
    }
    if (fcntl(fd, F_ADD_SEALS, SEALS_NEEDED | F_SEAL_SEAL) < 0)
        return -1;
    return take_fd(&fd);
}

static bool send_indirect(int socket, const struct buffer *message, const int *fds, size_t count)
{
    auto_buffer datagram = {0};
    auto_fd memfd = sealed_memfd(message);
    int all[FDS_MAX];

    if (memfd < 0)
        return false;
    pack_map(&datagram, 1);
    pack_text(&datagram, "type");
    pack_text(&datagram, "indirect");
    all[0] = memfd;
    for (size_t i = 0; i < count; i++)
        all[1 + i] = fds[i];
    return send_datagram(socket, datagram.data, datagram.size, all, count + 1);
}

bool wire_send(int socket, struct buffer *message, const int *fds, size_t count)
{
    if (message->failed || message->size > MESSAGE_MAX || count >= FDS_MAX) {
        errno = message->failed ? ENOMEM : EMSGSIZE;
        return false;
    }
    if (message->size <= INLINE_MAX) {
        if (send_datagram(socket, message->data, message->size, fds, count))
            return true;
        /* net.core.wmem_default may be less than that */
        if (errno != EMSGSIZE)
            return false;
    }
    return send_indirect(socket, message, fds, count);
}

void packet_close(struct packet *packet)
{
    for (size_t i = 0; i < packet->fd_count; i++)
        close_fd(&packet->fds[i]);
    packet->fd_count = 0;
    free(packet->memory);
    packet->memory = NULL;
}

static void keep_fds(struct msghdr *header, struct packet *packet)
{
    for (struct cmsghdr *next = CMSG_FIRSTHDR(header); next; next = CMSG_NXTHDR(header, next)) {
        if (next->cmsg_level != SOL_SOCKET || next->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (next->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && packet->fd_count < FDS_MAX; i++)
            memcpy(&packet->fds[packet->fd_count++], CMSG_DATA(next) + i * sizeof(int), sizeof(int));
    }
}

static bool wait_readable(int socket, int limit)
{
    struct pollfd wanted = {.fd = socket, .events = POLLIN};
    struct timespec start, now;

    if (limit < 0)
        return true;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int left = limit;;) {
        int ready = poll(&wanted, 1, left);
        if (ready > 0)
            return true;
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t passed = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        if (passed >= limit || (ready < 0 && errno != EINTR))
            return false;
        left = (int)(limit - passed);
    }
}

/* Takes the memfd from the front of the fds and reads the body out of it. */
static bool read_indirect(struct packet *packet)
{
    struct stat status;

    if (packet->fd_count == 0)
        return false;
    auto_fd memfd = packet->fds[0];
    memmove(packet->fds, packet->fds + 1, --packet->fd_count * sizeof(int));
    /* reading from anything else could block, or be changed by the peer while we look at it */
    int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED || fstat(memfd, &status) < 0)
        return false;
    if (status.st_size <= 0 || status.st_size > MESSAGE_MAX)
        return false;
    size_t size = (size_t)status.st_size, done = 0;
    packet->memory = malloc(size);
    while (packet->memory && done < size) {
        ssize_t got = pread(memfd, packet->memory + done, size - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    packet->body = (struct cursor){packet->memory, packet->memory + size};
    return packet->memory && unpack_valid(packet->body);
}

static bool read_type(struct packet *packet)
{
    struct cursor value;

    return unpack_find(packet->body, "type", &value) && unpack_text(&value, &packet->type);
}

/* The names in the list `fds`, which is absent where there are none. */
static bool next_fd_name(struct cursor *names, uint32_t *left, struct span *name)
{
    if (*left == 0)
        return false;
    --*left;
    return unpack_text(names, name);
}

static bool fd_names(const struct packet *packet, struct cursor *names, uint32_t *count)
{
    *count = 0;
    return !unpack_find(packet->body, "fds", names) || unpack_array(names, count);
}

/* One name for each fd, all of them different. */
static bool check_fd_names(const struct packet *packet)
{
    struct cursor names;
    struct span seen[FDS_MAX];
    uint32_t left;

    if (!fd_names(packet, &names, &left) || left != packet->fd_count)
        return false;
    for (size_t i = 0; i < packet->fd_count; i++) {
        if (!next_fd_name(&names, &left, &seen[i]))
            return false;
        for (size_t k = 0; k < i; k++)
            if (seen[k].size == seen[i].size && memcmp(seen[k].start, seen[i].start, seen[i].size) == 0)
                return false;
    }
    return true;
}

static bool understand(struct packet *packet)
{
    if (!unpack_valid(packet->body) || !read_type(packet))
        return false;
    if (span_is(packet->type, "indirect") && (!read_indirect(packet) || !read_type(packet)))
        return false;
    return check_fd_names(packet);
}

enum receipt wire_receive(int socket, int limit, struct packet *packet)
{
    static uint8_t datagram[INLINE_MAX];
    char control[CMSG_SPACE(sizeof(int) * FDS_MAX)] __attribute__((aligned(8)));
    struct iovec part = {datagram, sizeof(datagram)};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t size;

    packet->fd_count = 0;
    packet->memory = NULL;
    if (!wait_readable(socket, limit))
        return TOO_LATE;
    do
        size = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return errno == ECONNRESET ? CLOSED : INVALID;
    keep_fds(&header, packet);
    packet->body = (struct cursor){datagram, datagram + size};
    if (size > 0 && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && understand(packet))
        return RECEIVED;
    packet_close(packet);
    return size > 0 ? INVALID : CLOSED;
}

bool packet_is(const struct packet *packet, const char *type)
{
    return span_is(packet->type, type);
}

bool packet_number(const struct packet *packet, const char *name, int64_t minimum, int64_t maximum, int64_t *number)
{
    struct cursor value;

    return unpack_find(packet->body, name, &value) && unpack_number(&value, number) && *number >= minimum &&
           *number <= maximum;
}

bool packet_bytes(const struct packet *packet, const char *name, struct span *bytes)
{
    struct cursor value;

    return unpack_find(packet->body, name, &value) && unpack_bytes(&value, bytes);
}

bool packet_true(const struct packet *packet, const char *name)
{
    struct cursor value;
    bool truth;

    return unpack_find(packet->body, name, &value) && unpack_boolean(&value, &truth) && truth;
}

char *packet_text(const struct packet *packet, const char *name)
{
    struct cursor value;
    struct span text;

    if (!unpack_find(packet->body, name, &value) || !unpack_text(&value, &text))
        return NULL;
    return memchr(text.start, '\0', text.size) ? NULL : strndup(text.start, text.size);
}

char **packet_texts(const struct packet *packet, const char *name)
{
    struct cursor value;
    struct span text;
    uint32_t count;

    if (!unpack_find(packet->body, name, &value) || !unpack_array(&value, &count))
        return NULL;
    /* that all of the list is there is known, so its count and its bytes are bounded by the message's size */
    size_t space = (size_t)(value.end - value.at) + count, pointers = ((size_t)count + 1) * sizeof(char *);
    auto_free char **texts = malloc(pointers + space);
    if (!texts)
        return NULL;
    char *place = (char *)texts + pointers;
    for (uint32_t i = 0; i < count; i++) {
        if (!unpack_text(&value, &text) || memchr(text.start, '\0', text.size))
            return NULL;
        texts[i] = place;
        memcpy(place, text.start, text.size);
        place += text.size;
        *place++ = '\0';
    }
    texts[count] = NULL;
    char **result = texts;
    texts = NULL;
    return result;
}

int packet_take_fd(struct packet *packet, const char *name)
{
    struct cursor names;
    struct span found;
    uint32_t left;

    if (!fd_names(packet, &names, &left))
        return -1;
    for (size_t i = 0; next_fd_name(&names, &left, &found); i++)
        if (span_is(found, name))
            return take_fd(&packet->fds[i]);
    return -1;
}
