/* Writes msgpack: the few kinds of values that our own messages have. */

#ifndef CTR_PACK_H
#define CTR_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows as it is written to. When memory runs out it stays `failed`, so that only the end has to be checked. */
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
};

void buffer_free(struct buffer *buffer);

#define auto_buffer __attribute__((cleanup(buffer_free))) struct buffer

void pack_map(struct buffer *buffer, uint32_t pairs);
void pack_array(struct buffer *buffer, uint32_t items);
/* The bytes as they are: arguments and paths need not be UTF-8. */
void pack_text(struct buffer *buffer, const char *text);
void pack_number(struct buffer *buffer, int64_t number);

#endif
