/* Messages on a SEQPACKET socket (docs/PROTOCOL.md, Framing); the Python side of it is ctr_common/wire.py. */

#ifndef CTR_WIRE_H
#define CTR_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack.h"
#include "unpack.h"

/* unix(7): SCM_MAX_FD */
#define FDS_MAX 253

/* A received message, with the fds that came along until they are taken. */
struct packet {
    struct cursor body;
    struct span type;
    uint8_t *memory; /* of a body that came in a memfd */
    int fds[FDS_MAX];
    size_t fd_count;
};

enum receipt { RECEIVED, CLOSED, TOO_LATE, INVALID };

/*
 * Connects to a listening socket, of root or of our own user; -1 when that is not possible, with errno, EPERM for a
 * socket of somebody else. Never waits long. The fd is close-on-exec and beyond those that callers hand on.
 */
int wire_connect(const char *path);

/* Sends one message, a large one in a sealed memfd; false on failure, with errno. */
bool wire_send(int socket, struct buffer *message, const int *fds, size_t count);

/* Waits for the next message, `limit` milliseconds at most, or as long as the peer lives if that is -1. */
enum receipt wire_receive(int socket, int limit, struct packet *packet);

void packet_close(struct packet *packet);

#define auto_packet __attribute__((cleanup(packet_close))) struct packet

bool packet_is(const struct packet *packet, const char *type);

/* Values of the message; false when there is none of that name or it is something else. */
bool packet_number(const struct packet *packet, const char *name, int64_t minimum, int64_t maximum, int64_t *number);
bool packet_bytes(const struct packet *packet, const char *name, struct span *bytes);
bool packet_true(const struct packet *packet, const char *name);

/* A copy of a text without NUL in it; NULL when there is none. */
char *packet_text(const struct packet *packet, const char *name);

/* Copies of a list of such texts, with a NULL behind the last; NULL when it is none. One free() frees it all. */
char **packet_texts(const struct packet *packet, const char *name);

/* Takes an announced fd; -1 when there is none of that name. */
int packet_take_fd(struct packet *packet, const char *name);

#endif
