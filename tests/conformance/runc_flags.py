"""Every flag of every verb of runc 1.1 to 1.5, the long names; hidden ones too, as callers pass them."""

from __future__ import annotations

_NEW = "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds"

_WORDS = {
    "global": "debug log log-format root criu systemd-cgroup rootless help version",
    "checkpoint": "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap"
    " ext-unix-sk shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns"
    " auto-dedup",
    "create": _NEW,
    "delete": "force",
    "events": "interval stats",
    "exec": "console-socket pidfd-socket cwd env tty user additional-gids process detach pid-file process-label"
    " apparmor no-new-privs cap preserve-fds cgroup ignore-paused",
    "features": "",
    "kill": "all",
    "list": "format quiet",
    "pause": "",
    "ps": "format",
    "restore": "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks"
    " manage-cgroups-mode bundle detach pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile"
    " lsm-mount-context",
    "resume": "",
    "run": f"{_NEW} detach keep no-subreaper",
    "spec": "bundle rootless",
    "start": "",
    "state": "",
    "update": "resources blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus"
    " cpuset-mems kernel-memory kernel-memory-tcp memory memory-reservation memory-swap pids-limit l3-cache-schema"
    " mem-bw-schema cpu-idle",
}

FLAGS = {verb: words.split() + ([] if verb == "global" else ["help"]) for verb, words in _WORDS.items()}

# Verbs of a later release, and why.
LATER: dict[str, str] = {}
