/* User and group ids, and whether others may look into this process. */

#ifndef CTR_IDS_H
#define CTR_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A process that is not dumpable can't be ptraced or read through /proc by the processes of a container that it joins
 * (CVE-2016-9962). The kernel sets the flag anew at every change of ids, from fs.suid_dumpable.
 */
void set_dumpable(bool dumpable);

/* No supplementary groups (where the user namespace lets it), gid 0, uid 0. proc: see proc_open_root. */
void become_root(int proc);

/* The ids of the container's user. groups: NULL leaves the supplementary groups alone. proc: see proc_open_root. */
void become_user(int proc, uint32_t uid, uint32_t gid, const uint32_t *groups, size_t group_count);

#endif
