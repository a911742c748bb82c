/* Capability sets. */

#ifndef CTR_CAPS_H
#define CTR_CAPS_H

#include <stdint.h>

/* Drops what is not in the mask from the bounding set; needs CAP_SETPCAP in the user namespace. */
void caps_limit_bounding(uint64_t bounding);

/* Keeps the permitted set over the change to a user who is not root, so that caps_set can choose from it. */
void caps_keep(void);

/* Sets effective, permitted, inheritable and ambient; masks by enum capability_set. Undoes caps_keep. */
void caps_set(const uint64_t *capabilities);

#endif
