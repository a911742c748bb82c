/*
 * The host's /proc, opened and verified once, before anything of a container is joined.
 *
 * An image or a neighbour can mount something over /proc of the container (CVE-2019-16884, CVE-2019-19921), so that
 * one is never touched. `self` in this procfs keeps meaning the calling process in whatever namespaces it is, because
 * the link is resolved in the pid namespace of the mount.
 */

#ifndef CTR_PROCFS_H
#define CTR_PROCFS_H

#include <stdbool.h>
#include <stddef.h>

/* An O_PATH fd of /proc; ends the process when /proc is not a procfs. */
int proc_open_root(void);

/* Whether the fd is the topmost directory of a procfs. */
bool proc_is_root(int fd);

/* Opens a file below proc without crossing into another mount or through a magic link. -1 and errno on failure. */
int proc_open(int proc, const char *path, int flags);

/* Opens self/<directory>/<name>, where the last step is a magic link such as ns/mnt or fd/3. -1 and errno on failure.
 */
int proc_open_link(int proc, const char *directory, const char *name, int flags);

/* Writes the text at once. 0, or -1 and errno. */
int proc_write(int proc, const char *path, const char *text);

/* Writes the text at once to an fd from proc_open. 0, or -1 and errno. */
int write_at_once(int fd, const void *data, size_t size);

#endif
