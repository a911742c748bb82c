/* Resource limits and scheduling of the process. */

#ifndef CTR_LIMITS_H
#define CTR_LIMITS_H

#include "settings.h"

void set_personality(const struct settings *settings);
void set_scheduler(const struct settings *settings);
void set_io_priority(const struct settings *settings);
void set_memory_policy(const struct settings *settings);
void set_rlimits(const struct settings *settings);
void reset_affinity(void);
void set_affinity(const struct cpu_mask *mask);

#endif
