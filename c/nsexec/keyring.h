/* The session keyring of the process. */

#ifndef CTR_KEYRING_H
#define CTR_KEYRING_H

/* Joins (or makes) the session keyring of this name. label: SELinux label for a new one, or NULL. */
void keyring_join(const char *name, const char *label, int proc);

#endif
