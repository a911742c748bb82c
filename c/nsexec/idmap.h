/* The id maps of a new user namespace. */

#ifndef CTR_IDMAP_H
#define CTR_IDMAP_H

#include <sys/types.h>

#include "bootstrap.h"

/* Writes setgroups, uid_map and gid_map of the process, itself or through newuidmap and newgidmap. */
void idmap_write(const struct bootstrap *bootstrap, int proc, pid_t pid);

#endif
