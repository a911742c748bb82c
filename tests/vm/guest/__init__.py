"""A Debian 13 guest with systemd and cgroup v2: how it is built, started, filled with this tree, and ended."""
