/*
 * The decoder on its own: reads one message from standard input and prints what it holds, one value a line.
 *
 * exit status: 0 after a valid message, 3 after one that is none.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unpack.h"

#define INVALID 3

static bool print_value(struct cursor *cursor)
{
    struct span span;
    int64_t number;
    uint32_t count;
    bool truth;

    if (unpack_number(cursor, &number))
        printf("number %lld\n", (long long)number);
    else if (unpack_boolean(cursor, &truth))
        printf("boolean %d\n", truth);
    else if (unpack_text(cursor, &span))
        printf("text %zu %.*s\n", span.size, (int)span.size, span.start);
    else if (unpack_bytes(cursor, &span))
        printf("bytes %zu\n", span.size);
    else if (unpack_array(cursor, &count))
        printf("array %u\n", count);
    else if (unpack_map(cursor, &count))
        printf("map %u\n", count);
    else {
        puts("other");
        return unpack_skip(cursor);
    }
    return true;
}

int main(void)
{
    size_t size = 0, capacity = 1 << 16;
    /* exactly as large as what is read, so that one byte too many is seen by the sanitizer */
    uint8_t *data = malloc(capacity);

    if (!data)
        return 1;
    for (size_t got; (got = fread(data + size, 1, capacity - size, stdin)) > 0; size += got)
        if (size + got == capacity) {
            uint8_t *grown = realloc(data, capacity *= 2);
            if (!grown)
                return 1;
            data = grown;
        }
    uint8_t *exact = realloc(data, size ? size : 1);
    if (!exact)
        return 1;
    struct cursor message = {exact, exact + size}, value;
    int status = unpack_valid(message) ? 0 : INVALID;
    if (status == 0)
        while (message.at < message.end)
            if (!print_value(&message))
                abort(); /* what is valid can be read to its end */
    /* also what is not valid must not lead the search astray */
    if (unpack_find((struct cursor){exact, exact + size}, "type", &value))
        puts("found type");
    free(exact);
    return status;
}
