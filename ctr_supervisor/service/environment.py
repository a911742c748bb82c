"""The environment that a worker of the pool has for its job: the client's, or the one that it was born with.

Callers of one supervisor mostly have the same, and setting all of it anew costs as much as several mounts: only what
differs from the job before is set.
"""

import os

_born_with: list[str] = []
_worn: list[str] = []


def keep() -> None:
    """Has `put_back` come back to the environment that this process has now."""
    global _born_with, _worn
    _born_with = _worn = [f"{name}={value}" for name, value in os.environ.items()]


def put_back() -> None:
    """Puts the own environment on."""
    put_on(_born_with)


def put_on(entries: list[str]) -> None:
    """Makes the environment of this process consist of these entries; nothing else may change it in a worker.

    Args:
        entries: NAME=value each; others are left out, and of several with one name the last one counts.
    """
    global _worn
    if entries == _worn:
        return
    wanted = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if name and equals:
            wanted[name] = value
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    _worn = entries
