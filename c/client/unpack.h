/* Reads msgpack. Nothing is believed of it: no byte beyond the end is looked at, and no count is trusted. */

#ifndef CTR_UNPACK_H
#define CTR_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The part of a message that has not been read yet. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

/* Bytes inside a message; they end where `size` says, not at a NUL. */
struct span {
    const char *start;
    size_t size;
};

bool span_is(struct span span, const char *text);

/* Each returns false, and leaves the cursor where it is, when there is something else or the message ends before. */
bool unpack_map(struct cursor *cursor, uint32_t *pairs);
bool unpack_array(struct cursor *cursor, uint32_t *items);
bool unpack_text(struct cursor *cursor, struct span *text);
bool unpack_bytes(struct cursor *cursor, struct span *bytes);
bool unpack_number(struct cursor *cursor, int64_t *number);
bool unpack_boolean(struct cursor *cursor, bool *value);

/* Steps over one value with all that is in it. */
bool unpack_skip(struct cursor *cursor);

/* The value of a key in the map that the whole message is; false when it has none. The message must be `valid`. */
bool unpack_find(struct cursor message, const char *key, struct cursor *value);

/* Whether it is one map with text as its keys, whole, and nothing behind it. */
bool unpack_valid(struct cursor message);

#endif
