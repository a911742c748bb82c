/* The framing of the start-up protocol: bounded reading and writing of messages, and their way over the socket. */

#ifndef CTR_MESSAGE_H
#define CTR_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

#define MESSAGE_FDS_MAX 32
#define MESSAGE_SIZE_MAX (16U << 20)
#define MESSAGE_HEADER_SIZE 16
#define ATTRIBUTE_HEADER_SIZE 8

/* A checked message. Owns its data and its fds. */
struct message {
    uint16_t type;
    uint32_t sequence;
    uint8_t *data; /* header included */
    size_t size;
    int fds[MESSAGE_FDS_MAX];
    size_t fd_count;
};

struct attribute {
    const struct attribute_info *info;
    const uint8_t *data;
    uint32_t size;
};

/* A place between attributes; only over checked data. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

struct writer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    int fds[MESSAGE_FDS_MAX];
    size_t fd_count;
};

/*
 * Checks one message at the start of data.
 *
 * Args: fd_count is the number of fds that came with it; SIZE_MAX allows any index (messages read from a file).
 * Returns: NULL and the header's fields in *message (data points into the argument, nothing is owned), or what is
 * wrong.
 */
const char *message_check(const uint8_t *data, size_t size, size_t fd_count, struct message *message);

struct cursor message_attributes(const struct message *message);
struct cursor nested_attributes(const struct attribute *attribute);
bool attribute_next(struct cursor *cursor, struct attribute *attribute);

uint32_t attribute_u32(const struct attribute *attribute);
uint64_t attribute_u64(const struct attribute *attribute);
bool attribute_bool(const struct attribute *attribute);
/* The text with a NUL at its end; the caller frees it. */
char *attribute_string(const struct attribute *attribute);
/* Takes the fd out of the message. Fails when another attribute took it. */
int attribute_fd(const struct attribute *attribute, struct message *message);

/* Receives one message of any type. False: the peer is gone. A malformed one ends the process with a ProtocolError. */
bool message_receive(int socket, struct message *message);
/* Receives a message of this type; quits when the peer is gone, fails when it is another one. */
void message_expect(int socket, uint16_t type, struct message *message);
/* Waits for an ACKNOWLEDGED. */
void message_acknowledged(int socket);
/* Frees the data and closes the fds that nobody took. */
void message_release(struct message *message);

struct writer message_begin(uint16_t type);
void put_bytes(struct writer *writer, enum attribute_type type, const void *data, size_t size);
void put_u32(struct writer *writer, enum attribute_type type, uint32_t value);
void put_bool(struct writer *writer, enum attribute_type type, bool value);
void put_string(struct writer *writer, enum attribute_type type, const char *text);
/* The fd stays the caller's; it must stay open until message_send. */
void put_fd(struct writer *writer, enum attribute_type type, int fd);
/* Sends the message and frees the writer. False: the peer is gone or the message can't be sent. */
bool message_send(int socket, struct writer *writer);
/* The same for a pipe, which carries no fds. */
bool message_write(int pipe, struct writer *writer);
/* Sends a message that exists as bytes already, in a memfd when it is long. */
bool message_send_bytes(int socket, const uint8_t *data, size_t size, const int *fds, size_t fd_count);

#endif
