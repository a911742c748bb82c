"""How many files the supervisor may have open, and how many what it starts."""

import resource

# What programs of containers are born with where the limit is not known: the kernel's own default.
USUAL = 1024


def soft() -> int:
    """The soft limit of open files of this process."""
    found, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if found == resource.RLIM_INFINITY else found


def raise_to_hard() -> tuple[int, int]:
    """Raises the soft limit of open files to the hard one.

    Returns:
        What it was before, for `restore` in children: select(2), and loops over all fds in programs of containers,
        rely on the usual soft limit.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def restore(before: tuple[int, int]) -> None:
    """Takes `raise_to_hard` back."""
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
