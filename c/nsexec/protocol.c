#include "protocol.h"

#include <stddef.h>

#define CTR_ATTRIBUTE(name, number, kind, meaning) {number, KIND_##kind, (meaning)[0] == '*', #name},
static const struct attribute_info attributes[] = {
#include "protocol.def"
};
#undef CTR_ATTRIBUTE

#define CTR_MESSAGE(name, number, meaning) {number, #name},
static const struct {
    uint16_t type;
    const char *name;
} messages[] = {
#include "protocol.def"
};
#undef CTR_MESSAGE

const struct attribute_info *attribute_info(uint32_t type)
{
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
        if (attributes[i].type == type)
            return &attributes[i];
    return NULL;
}

const char *message_name(uint16_t type)
{
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
        if (messages[i].type == type)
            return messages[i].name;
    return NULL;
}
