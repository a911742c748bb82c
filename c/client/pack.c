#include "pack.h"

#include <stdlib.h>
#include <string.h>

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

static void append(struct buffer *buffer, const void *data, size_t size)
{
    if (buffer->failed)
        return;
    if (size > buffer->capacity - buffer->size) {
        size_t capacity = buffer->capacity ? buffer->capacity : 4096;
        while (capacity - buffer->size < size) {
            if (capacity > SIZE_MAX / 2) {
                buffer->failed = true;
                return;
            }
            capacity *= 2;
        }
        uint8_t *grown = realloc(buffer->data, capacity);
        if (!grown) {
            buffer->failed = true;
            return;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

/* A type byte and a big-endian number of `bytes` bytes. */
static void append_head(struct buffer *buffer, uint8_t type, uint64_t number, int bytes)
{
    uint8_t head[9] = {type};

    for (int i = 0; i < bytes; i++)
        head[1 + i] = (uint8_t)(number >> (8 * (bytes - 1 - i)));
    append(buffer, head, 1 + (size_t)bytes);
}

void pack_map(struct buffer *buffer, uint32_t pairs)
{
    if (pairs < 16)
        append_head(buffer, (uint8_t)(0x80 | pairs), 0, 0);
    else
        append_head(buffer, 0xdf, pairs, 4);
}

void pack_array(struct buffer *buffer, uint32_t items)
{
    if (items < 16)
        append_head(buffer, (uint8_t)(0x90 | items), 0, 0);
    else
        append_head(buffer, 0xdd, items, 4);
}

void pack_text(struct buffer *buffer, const char *text)
{
    size_t size = strlen(text);

    if (size < 32)
        append_head(buffer, (uint8_t)(0xa0 | size), 0, 0);
    else if (size <= UINT8_MAX)
        append_head(buffer, 0xd9, size, 1);
    else if (size <= UINT16_MAX)
        append_head(buffer, 0xda, size, 2);
    else if (size <= UINT32_MAX)
        append_head(buffer, 0xdb, size, 4);
    else
        buffer->failed = true;
    append(buffer, text, size);
}

void pack_number(struct buffer *buffer, int64_t number)
{
    if (number >= 0 && number < 128)
        append_head(buffer, (uint8_t)number, 0, 0);
    else
        append_head(buffer, 0xd3, (uint64_t)number, 8);
}
