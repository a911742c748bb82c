/* `ctr-init decode`: prints saved messages of the start-up protocol. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "message.h"
#include "verbs.h"

#define FILE_SIZE_MAX (64U << 20)
#define BYTES_SHOWN 48

uint8_t *read_whole_file(const char *path, size_t *size)
{
    auto_fd opened = -1;
    int fd = STDIN_FILENO;
    size_t capacity = 1 << 16, used = 0;

    if (strcmp(path, "-") != 0)
        fd = opened = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *data = fd < 0 ? NULL : allocate(capacity);
    while (data) {
        if (used == capacity) {
            uint8_t *larger = allocate(capacity * 2);
            memcpy(larger, data, used);
            free(data);
            data = larger;
            capacity *= 2;
        }
        ssize_t count = read(fd, data + used, capacity - used);
        if (count < 0 && errno == EINTR)
            continue;
        if (count == 0) {
            *size = used;
            return data;
        }
        used += count > 0 ? (size_t)count : 0;
        if (count > 0 && used <= FILE_SIZE_MAX)
            continue;
        errno = count < 0 ? errno : EFBIG;
        free(data);
        data = NULL;
    }
    fprintf(stderr, "ctr-init: read %s: %s\n", path, strerror(errno));
    return NULL;
}

static void print_bytes(const struct attribute *attribute)
{
    printf("%" PRIu32 " bytes", attribute->size);
    for (uint32_t i = 0; i < attribute->size && i < BYTES_SHOWN; i++)
        printf("%s%02x", i % 8 ? "" : " ", attribute->data[i]);
    if (attribute->size > BYTES_SHOWN)
        printf(" ...");
}

static void print_rlimit(const struct attribute *attribute)
{
    uint32_t resource;
    uint64_t values[2];

    if (attribute->size != 24) {
        print_bytes(attribute);
        return;
    }
    memcpy(&resource, attribute->data, sizeof(resource));
    memcpy(values, attribute->data + 8, sizeof(values));
    printf("resource %" PRIu32 " soft %" PRIu64 " hard %" PRIu64, resource, values[0], values[1]);
}

static void print_attributes(struct cursor cursor, int depth);

static void print_attribute(const struct attribute *attribute, int depth)
{
    printf("%*s%s", depth * 2, "", attribute->info->name);
    switch (attribute->info->kind) {
    case KIND_u8:
        printf(" = %d", attribute->data[0]);
        break;
    case KIND_bool:
        printf(" = %s", attribute->data[0] ? "true" : "false");
        break;
    case KIND_u32:
        printf(" = %" PRIu32, attribute_u32(attribute));
        break;
    case KIND_u64:
        printf(" = %#" PRIx64, attribute_u64(attribute));
        break;
    case KIND_str: {
        auto_free char *text = attribute_string(attribute);
        auto_free char *shown = quoted(text);
        printf(" = %s", shown);
        break;
    }
    case KIND_bytes:
        printf(" = ");
        if (attribute->info->type == ATTR_RLIMIT)
            print_rlimit(attribute);
        else
            print_bytes(attribute);
        break;
    case KIND_fd:
        printf(" = fd #%" PRIu32 " of the message", attribute_u32(attribute));
        break;
    case KIND_u32s:
        printf(" =");
        for (uint32_t i = 0; i < attribute->size; i += 4) {
            uint32_t value;
            memcpy(&value, attribute->data + i, sizeof(value));
            printf(" %" PRIu32, value);
        }
        break;
    case KIND_nest:
        printf("\n");
        print_attributes(nested_attributes(attribute), depth + 1);
        return;
    }
    printf("\n");
}

static void print_attributes(struct cursor cursor, int depth)
{
    struct attribute attribute;

    while (attribute_next(&cursor, &attribute))
        print_attribute(&attribute, depth);
}

int verb_decode(const char *path)
{
    size_t size, done = 0;
    auto_free uint8_t *data = read_whole_file(path, &size);

    if (!data)
        return 1;
    while (done < size) {
        struct message message;
        const char *wrong = message_check(data + done, size - done, SIZE_MAX, &message);
        if (wrong) {
            fflush(stdout);
            fprintf(stderr, "ctr-init: %s: message at byte %zu: %s\n", path, done, wrong);
            return 1;
        }
        printf("%s (message %u, sequence %" PRIu32 ", %zu bytes)\n", message_name(message.type), message.type,
               message.sequence, message.size);
        print_attributes(message_attributes(&message), 1);
        done += message.size;
    }
    return 0;
}
