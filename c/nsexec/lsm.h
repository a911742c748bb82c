/*
 * Labels of the security modules, written to the attr files of the calling thread in the verified procfs: written to a
 * file of the image they would change nothing and look as if they had (CVE-2019-16884, CVE-2019-19921).
 */

#ifndef CTR_LSM_H
#define CTR_LSM_H

/* The profile to change to at execve. */
void lsm_set_apparmor(int proc, const char *profile);

/* The label for execve. */
void lsm_set_selinux(int proc, const char *label);

/* The label for keys made from now on; "" for the default. */
void lsm_set_keyring_label(int proc, const char *label);

#endif
