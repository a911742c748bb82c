/* Joining namespaces that exist. */

#ifndef CTR_NAMESPACES_H
#define CTR_NAMESPACES_H

#include "bootstrap.h"

/*
 * Joins everything that the bootstrap names, by pidfd and by path.
 *
 * All files are opened before the first join, because a joined mount namespace has other paths. Then the
 * user namespace comes in the middle: what its owner alone may join waits until after it, what belongs to
 * a namespace further out is joined before, while the rights of the caller still hold there.
 */
void namespaces_join(struct bootstrap *bootstrap, int proc);

/* True when the bootstrap makes or joins a namespace of this type. */
bool namespaces_touch(const struct bootstrap *bootstrap, uint64_t flag);

#endif
