#include "unpack.h"

#include <string.h>

enum kind { NIL, BOOLEAN, NUMBER, REAL, TEXT, BYTES, ARRAY, MAP, EXTENSION };

/* What the type byte and the number behind it say of a value. */
struct head {
    enum kind kind;
    uint64_t number;  /* of a NUMBER the value, of a BOOLEAN 0 or 1, of an ARRAY the items, of a MAP the pairs */
    uint64_t payload; /* bytes that follow the head, other values apart */
};

bool span_is(struct span span, const char *text)
{
    return span.size == strlen(text) && memcmp(span.start, text, span.size) == 0;
}

static bool read_number(struct cursor *cursor, size_t bytes, uint64_t *number)
{
    if ((size_t)(cursor->end - cursor->at) < bytes)
        return false;
    *number = 0;
    for (size_t i = 0; i < bytes; i++)
        *number = *number << 8 | *cursor->at++;
    return true;
}

/* Two's complement of 1, 2, 4 or 8 bytes. */
static uint64_t extend_sign(uint64_t number, size_t bytes)
{
    uint64_t sign = UINT64_C(1) << (8 * bytes - 1);

    return bytes == 8 ? number : (number ^ sign) - sign;
}

static bool read_sized(struct cursor *cursor, struct head *head, enum kind kind, size_t bytes)
{
    uint64_t size;

    if (!read_number(cursor, bytes, &size))
        return false;
    head->kind = kind;
    if (kind == ARRAY || kind == MAP)
        head->number = size;
    else
        head->payload = kind == EXTENSION ? size + 1 : size;
    return true;
}

/* Types with a byte of their own: 0xc0 to 0xdf. */
static bool read_typed(struct cursor *cursor, struct head *head, uint8_t type)
{
    switch (type) {
    case 0xc0:
        head->kind = NIL;
        return true;
    case 0xc2:
    case 0xc3:
        head->kind = BOOLEAN;
        head->number = type & 1;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return read_sized(cursor, head, BYTES, (size_t)1 << (type - 0xc4));
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return read_sized(cursor, head, EXTENSION, (size_t)1 << (type - 0xc7));
    case 0xca:
    case 0xcb:
        head->kind = REAL;
        head->payload = type == 0xca ? 4 : 8;
        return true;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        head->kind = NUMBER;
        /* beyond the signed range there is nothing that a field of ours could be */
        return read_number(cursor, (size_t)1 << (type - 0xcc), &head->number);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
        size_t bytes = (size_t)1 << (type - 0xd0);
        head->kind = NUMBER;
        if (!read_number(cursor, bytes, &head->number))
            return false;
        head->number = extend_sign(head->number, bytes);
        return true;
    }
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        head->kind = EXTENSION;
        head->payload = (UINT64_C(1) << (type - 0xd4)) + 1;
        return true;
    case 0xd9:
    case 0xda:
    case 0xdb:
        return read_sized(cursor, head, TEXT, (size_t)1 << (type - 0xd9));
    case 0xdc:
    case 0xdd:
        return read_sized(cursor, head, ARRAY, (size_t)2 << (type - 0xdc));
    case 0xde:
    case 0xdf:
        return read_sized(cursor, head, MAP, (size_t)2 << (type - 0xde));
    default: /* 0xc1 is never used */
        return false;
    }
}

/* Moves the cursor behind the head; its payload is then known to be there. */
static bool read_head(struct cursor *cursor, struct head *head)
{
    *head = (struct head){.kind = NIL};
    if (cursor->at == cursor->end)
        return false;
    uint8_t type = *cursor->at++;
    if (type < 0x80 || type >= 0xe0) {
        head->kind = NUMBER;
        head->number = extend_sign(type, 1);
    } else if (type < 0x90) {
        head->kind = MAP;
        head->number = type & 0x0f;
    } else if (type < 0xa0) {
        head->kind = ARRAY;
        head->number = type & 0x0f;
    } else if (type < 0xc0) {
        head->kind = TEXT;
        head->payload = type & 0x1f;
    } else if (!read_typed(cursor, head, type)) {
        return false;
    }
    return head->payload <= (uint64_t)(cursor->end - cursor->at);
}

static bool read_kind(struct cursor *cursor, enum kind kind, struct head *head)
{
    struct cursor ahead = *cursor;

    if (!read_head(&ahead, head) || head->kind != kind)
        return false;
    *cursor = ahead;
    return true;
}

static bool read_count(struct cursor *cursor, enum kind kind, uint32_t *count)
{
    struct head head;

    if (!read_kind(cursor, kind, &head))
        return false;
    *count = (uint32_t)head.number;
    return true;
}

bool unpack_map(struct cursor *cursor, uint32_t *pairs)
{
    return read_count(cursor, MAP, pairs);
}

bool unpack_array(struct cursor *cursor, uint32_t *items)
{
    return read_count(cursor, ARRAY, items);
}

static bool read_span(struct cursor *cursor, enum kind kind, struct span *span)
{
    struct head head;

    if (!read_kind(cursor, kind, &head))
        return false;
    *span = (struct span){(const char *)cursor->at, (size_t)head.payload};
    cursor->at += head.payload;
    return true;
}

bool unpack_text(struct cursor *cursor, struct span *text)
{
    return read_span(cursor, TEXT, text);
}

bool unpack_bytes(struct cursor *cursor, struct span *bytes)
{
    return read_span(cursor, BYTES, bytes);
}

bool unpack_number(struct cursor *cursor, int64_t *number)
{
    struct head head;

    if (!read_kind(cursor, NUMBER, &head))
        return false;
    *number = (int64_t)head.number;
    return true;
}

bool unpack_boolean(struct cursor *cursor, bool *value)
{
    struct head head;

    if (!read_kind(cursor, BOOLEAN, &head))
        return false;
    *value = head.number != 0;
    return true;
}

bool unpack_skip(struct cursor *cursor)
{
    struct cursor ahead = *cursor;

    /* a count instead of recursion: depth costs nothing, and each value that is waited for has at least one byte */
    for (uint64_t expected = 1; expected > 0; expected--) {
        struct head head;
        if (!read_head(&ahead, &head))
            return false;
        ahead.at += head.payload;
        if (head.kind == ARRAY)
            expected += head.number;
        else if (head.kind == MAP)
            expected += 2 * head.number;
        if (expected - 1 > (uint64_t)(ahead.end - ahead.at))
            return false;
    }
    *cursor = ahead;
    return true;
}

bool unpack_find(struct cursor message, const char *key, struct cursor *value)
{
    uint32_t pairs;

    if (!unpack_map(&message, &pairs))
        return false;
    for (; pairs > 0; pairs--) {
        struct span name;
        if (!unpack_text(&message, &name))
            return false;
        *value = message;
        if (!unpack_skip(&message))
            return false;
        if (span_is(name, key)) {
            value->end = message.at;
            return true;
        }
    }
    return false;
}

bool unpack_valid(struct cursor message)
{
    uint32_t pairs;
    struct span name;

    if (!unpack_map(&message, &pairs))
        return false;
    for (; pairs > 0; pairs--)
        if (!unpack_text(&message, &name) || !unpack_skip(&message))
            return false;
    return message.at == message.end;
}
