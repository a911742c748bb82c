/* The numbers of protocol.def as enums, and what each attribute looks like. */

#ifndef CTR_PROTOCOL_H
#define CTR_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#define CTR_MESSAGE(name, number, meaning) MSG_##name = number,
enum message_type {
#include "protocol.def"
};
#undef CTR_MESSAGE

#define CTR_ATTRIBUTE(name, number, kind, meaning) ATTR_##name = number,
enum attribute_type {
#include "protocol.def"
};
#undef CTR_ATTRIBUTE

enum attribute_kind { KIND_u8, KIND_u32, KIND_u64, KIND_bool, KIND_str, KIND_bytes, KIND_fd, KIND_nest, KIND_u32s };

struct attribute_info {
    uint32_t type;
    enum attribute_kind kind;
    bool repeats;
    const char *name;
};

/* NULL for a number that protocol.def does not know. */
const struct attribute_info *attribute_info(uint32_t type);
const char *message_name(uint16_t type);

#endif
