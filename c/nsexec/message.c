#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "procfs.h"

#define NEST_DEPTH_MAX 2
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static uint32_t read_u32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return value;
}

static uint16_t read_u16(const uint8_t *data)
{
    uint16_t value;

    memcpy(&value, data, sizeof(value));
    return value;
}

static size_t padded(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

static const char *check_attributes(const uint8_t *data, size_t size, size_t fd_count, unsigned depth);

/* The shape of one payload against its kind in protocol.def. */
static const char *check_payload(const struct attribute_info *info, const uint8_t *data, size_t size, size_t fd_count,
                                 unsigned depth)
{
    switch (info->kind) {
    case KIND_u8:
        return size == 1 ? NULL : "attribute of a wrong size";
    case KIND_bool:
        return size == 1 && data[0] <= 1 ? NULL : "attribute that is not a bool";
    case KIND_u32:
        return size == 4 ? NULL : "attribute of a wrong size";
    case KIND_u64:
        return size == 8 ? NULL : "attribute of a wrong size";
    case KIND_str:
        return memchr(data, '\0', size) ? "string with a NUL inside" : NULL;
    case KIND_bytes:
        return NULL;
    case KIND_fd:
        if (size != 4)
            return "attribute of a wrong size";
        return read_u32(data) < fd_count ? NULL : "fd that did not come with its message";
    case KIND_nest:
        return depth < NEST_DEPTH_MAX ? check_attributes(data, size, fd_count, depth + 1)
                                      : "attributes nested too deep";
    case KIND_u32s:
        return size % 4 == 0 ? NULL : "attribute of a wrong size";
    }
    return "attribute of an unknown kind";
}

/* Lengths are compared with what is left, never added up first: CVE-2021-43784 was a sum that wrapped. */
static const char *check_attributes(const uint8_t *data, size_t size, size_t fd_count, unsigned depth)
{
    uint64_t seen[4] = {0};

    while (size > 0) {
        if (size < ATTRIBUTE_HEADER_SIZE)
            return "truncated attribute";
        uint32_t length = read_u32(data), type = read_u32(data + 4);
        if (length < ATTRIBUTE_HEADER_SIZE || length > size)
            return "attribute length out of bounds";
        const struct attribute_info *info = attribute_info(type);
        if (!info)
            return "unknown attribute";
        if (!info->repeats && type < 256) {
            if (seen[type / 64] & (1ULL << (type % 64)))
                return "attribute given twice";
            seen[type / 64] |= 1ULL << (type % 64);
        }
        const char *wrong =
            check_payload(info, data + ATTRIBUTE_HEADER_SIZE, length - ATTRIBUTE_HEADER_SIZE, fd_count, depth);
        if (wrong)
            return wrong;
        size_t step = padded(length);
        if (step > size)
            return "truncated padding";
        data += step;
        size -= step;
    }
    return NULL;
}

const char *message_check(const uint8_t *data, size_t size, size_t fd_count, struct message *message)
{
    if (size < MESSAGE_HEADER_SIZE)
        return "truncated message header";
    uint32_t length = read_u32(data);
    if (length < MESSAGE_HEADER_SIZE || length > size || length % 4)
        return "message length out of bounds";
    if (length > MESSAGE_SIZE_MAX)
        return "message too long";
    if (!message_name(read_u16(data + 4)))
        return "unknown message";
    if (read_u16(data + 6) != CTR_PROTOCOL_VERSION)
        return "other version of the protocol";
    if (read_u32(data + 12) != 0)
        return "reserved field that is not 0";
    memset(message, 0, sizeof(*message));
    message->type = read_u16(data + 4);
    message->sequence = read_u32(data + 8);
    message->data = (uint8_t *)data;
    message->size = length;
    return check_attributes(data + MESSAGE_HEADER_SIZE, length - MESSAGE_HEADER_SIZE, fd_count, 0);
}

struct cursor message_attributes(const struct message *message)
{
    return (struct cursor){message->data + MESSAGE_HEADER_SIZE, message->data + message->size};
}

struct cursor nested_attributes(const struct attribute *attribute)
{
    return (struct cursor){attribute->data, attribute->data + attribute->size};
}

bool attribute_next(struct cursor *cursor, struct attribute *attribute)
{
    if (cursor->at >= cursor->end)
        return false;
    uint32_t length = read_u32(cursor->at);
    attribute->info = attribute_info(read_u32(cursor->at + 4));
    attribute->data = cursor->at + ATTRIBUTE_HEADER_SIZE;
    attribute->size = length - ATTRIBUTE_HEADER_SIZE;
    cursor->at += padded(length);
    return true;
}

uint32_t attribute_u32(const struct attribute *attribute)
{
    return read_u32(attribute->data);
}

uint64_t attribute_u64(const struct attribute *attribute)
{
    uint64_t value;

    memcpy(&value, attribute->data, sizeof(value));
    return value;
}

bool attribute_bool(const struct attribute *attribute)
{
    return attribute->data[0] != 0;
}

char *attribute_string(const struct attribute *attribute)
{
    char *text = allocate((size_t)attribute->size + 1);

    memcpy(text, attribute->data, attribute->size);
    return text;
}

int attribute_fd(const struct attribute *attribute, struct message *message)
{
    uint32_t index = attribute_u32(attribute);

    if (index >= message->fd_count || message->fds[index] < 0)
        fail(.kind = "ProtocolError", .step = "read message",
             .message = format_text("%s: no fd %u", attribute->info->name, index));
    return take_fd(&message->fds[index]);
}

void message_release(struct message *message)
{
    for (size_t i = 0; i < message->fd_count; i++)
        close_fd(&message->fds[i]);
    free(message->data);
    message->data = NULL;
}

/* Takes the fds out of the control data; false when there were more than fit. */
static bool collect_fds(struct msghdr *header, struct message *message)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
            if (message->fd_count == MESSAGE_FDS_MAX) {
                close(fd);
                return false;
            }
            message->fds[message->fd_count++] = fd;
        }
    }
    return !(header->msg_flags & MSG_CTRUNC);
}

static _Noreturn void malformed(const char *wrong)
{
    fail(.kind = "ProtocolError", .step = "read message", .message = wrong);
}

/* Replaces the bytes of an INDIRECT message by those of its memfd. */
static void read_indirect(struct message *message)
{
    if (message->fd_count == 0)
        malformed("indirect message without a memfd");
    auto_fd memfd = message->fds[0];
    message->fd_count--;
    memmove(message->fds, message->fds + 1, message->fd_count * sizeof(int));

    /* unsealed, the sender could shorten or change it between the check and the use */
    int seals = fcntl(memfd, F_GET_SEALS);
    struct stat status;
    if (seals < 0 || (seals & SEALS) != SEALS)
        malformed("indirect message in a memfd that is not sealed");
    if (fstat(memfd, &status) < 0 || status.st_size < MESSAGE_HEADER_SIZE || status.st_size > MESSAGE_SIZE_MAX)
        malformed("indirect message of a wrong size");

    size_t size = (size_t)status.st_size, done = 0;
    uint8_t *data = allocate(size);
    while (done < size) {
        ssize_t count = pread(memfd, data + done, size - done, (off_t)done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            malformed("indirect message that can't be read");
        done += (size_t)count;
    }
    free(message->data);
    message->data = data;
    message->size = size;
}

static bool is_indirect(const struct message *message)
{
    return message->size == MESSAGE_HEADER_SIZE && read_u16(message->data + 4) == MSG_INDIRECT;
}

bool message_receive(int socket, struct message *message)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec vector = {.iov_len = CTR_INLINE_MAX};
    struct msghdr header = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};

    memset(message, 0, sizeof(*message));
    vector.iov_base = message->data = allocate(CTR_INLINE_MAX);
    ssize_t count;
    do
        count = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (count < 0 && errno == EINTR);
    if (count == 0 || (count < 0 && errno == ECONNRESET)) {
        message_release(message);
        return false;
    }
    if (count < 0)
        fail(.kind = "ProtocolError", .step = "read message", .syscall = "recvmsg", .number = errno);
    message->size = (size_t)count;
    bool complete = collect_fds(&header, message);
    if (!complete)
        malformed("more fds than a message may carry");
    if (header.msg_flags & MSG_TRUNC)
        malformed("datagram longer than an inline message may be");

    if (message->size >= MESSAGE_HEADER_SIZE && is_indirect(message))
        read_indirect(message);

    struct message checked;
    const char *wrong = message_check(message->data, message->size, message->fd_count, &checked);
    if (wrong)
        malformed(wrong);
    if (checked.size != message->size)
        malformed("bytes after the message");
    message->type = checked.type;
    message->sequence = checked.sequence;
    return true;
}

void message_expect(int socket, uint16_t type, struct message *message)
{
    if (!message_receive(socket, message))
        quit();
    if (message->type != type)
        fail(.kind = "ProtocolError", .step = "read message",
             .message = format_text("expected %s, got %s", message_name(type), message_name(message->type)));
}

void message_acknowledged(int socket)
{
    struct message message;

    message_expect(socket, MSG_ACKNOWLEDGED, &message);
    message_release(&message);
}

static void reserve(struct writer *writer, size_t more)
{
    if (writer->capacity - writer->size >= more)
        return;
    size_t capacity = (writer->size + more) * 2;
    uint8_t *data = allocate(capacity);
    if (writer->data)
        memcpy(data, writer->data, writer->size);
    free(writer->data);
    writer->data = data;
    writer->capacity = capacity;
}

struct writer message_begin(uint16_t type)
{
    static uint32_t sequence;
    struct writer writer = {0};
    const uint16_t version = CTR_PROTOCOL_VERSION;

    reserve(&writer, 256);
    sequence++;
    memcpy(writer.data + 4, &type, 2);
    memcpy(writer.data + 6, &version, 2);
    memcpy(writer.data + 8, &sequence, 4);
    writer.size = MESSAGE_HEADER_SIZE;
    return writer;
}

void put_bytes(struct writer *writer, enum attribute_type type, const void *data, size_t size)
{
    uint32_t length = (uint32_t)(ATTRIBUTE_HEADER_SIZE + size), number = type;

    reserve(writer, padded(length));
    memcpy(writer->data + writer->size, &length, 4);
    memcpy(writer->data + writer->size + 4, &number, 4);
    memcpy(writer->data + writer->size + ATTRIBUTE_HEADER_SIZE, data, size);
    memset(writer->data + writer->size + length, 0, padded(length) - length);
    writer->size += padded(length);
}

void put_u32(struct writer *writer, enum attribute_type type, uint32_t value)
{
    put_bytes(writer, type, &value, sizeof(value));
}

void put_bool(struct writer *writer, enum attribute_type type, bool value)
{
    uint8_t byte = value;

    put_bytes(writer, type, &byte, 1);
}

void put_string(struct writer *writer, enum attribute_type type, const char *text)
{
    put_bytes(writer, type, text, strlen(text));
}

void put_fd(struct writer *writer, enum attribute_type type, int fd)
{
    put_u32(writer, type, (uint32_t)writer->fd_count);
    writer->fds[writer->fd_count++] = fd;
}

static bool send_datagram(int socket, const void *data, size_t size, const int *fds, size_t fd_count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * (MESSAGE_FDS_MAX + 1))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec vector = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};

    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
    }
    ssize_t count;
    do
        count = sendmsg(socket, &header, MSG_NOSIGNAL);
    while (count < 0 && errno == EINTR);
    return count == (ssize_t)size;
}

/* A sealed memfd with these bytes; -1 on failure. */
static int sealed_memfd(const uint8_t *data, size_t size)
{
    auto_fd memfd = memfd_create("ctr-message", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (memfd < 0)
        return -1;
    for (size_t done = 0; done < size;) {
        ssize_t count = write(memfd, data + done, size - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        done += (size_t)count;
    }
    if (fcntl(memfd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        return -1;
    return take_fd(&memfd);
}

bool message_send_bytes(int socket, const uint8_t *data, size_t size, const int *fds, size_t fd_count)
{
    if (size <= CTR_INLINE_MAX)
        return send_datagram(socket, data, size, fds, fd_count);

    const uint16_t type = MSG_INDIRECT;
    const uint32_t length = MESSAGE_HEADER_SIZE;
    uint8_t header[MESSAGE_HEADER_SIZE];
    int with_memfd[MESSAGE_FDS_MAX + 1];
    auto_fd memfd = sealed_memfd(data, size);
    if (memfd < 0 || fd_count > MESSAGE_FDS_MAX)
        return false;
    memcpy(header, data, sizeof(header));
    memcpy(header, &length, sizeof(length));
    memcpy(header + 4, &type, sizeof(type));
    with_memfd[0] = memfd;
    memcpy(with_memfd + 1, fds, fd_count * sizeof(int));
    return send_datagram(socket, header, sizeof(header), with_memfd, fd_count + 1);
}

static void finish(struct writer *writer)
{
    uint32_t length = (uint32_t)writer->size;

    memcpy(writer->data, &length, sizeof(length));
}

bool message_write(int pipe, struct writer *writer)
{
    finish(writer);
    bool written = write_at_once(pipe, writer->data, writer->size) == 0;
    free(writer->data);
    writer->data = NULL;
    return written;
}

bool message_send(int socket, struct writer *writer)
{
    finish(writer);
    bool sent = message_send_bytes(socket, writer->data, writer->size, writer->fds, writer->fd_count);
    free(writer->data);
    writer->data = NULL;
    return sent;
}
