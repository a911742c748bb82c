"""What the man page and the shell completions say of a flag's value, beyond what the command line itself knows."""

from __future__ import annotations

from ctr_supervisor.cli import main
from ctr_supervisor.cli.parser import BOOL, OPTIONAL, Flag
from ctr_supervisor.cli.surroundings import FLAGS
from ctr_supervisor.cli.verb import Verb

DIRECTORIES = {"bundle", "cwd", "image-path", "parent-path", "root", "work-path"}
FILES = {
    *("console-socket", "criu", "log", "pid-file", "pidfd-socket", "process", "resources", "supervisor", "trace"),
    *("lsm-profile",),
}
# By verb and flag; "" stands for every verb.
CHOICES = {
    ("", "log-format"): ("text", "json"),
    ("", "rootless"): ("auto", "true", "false"),
    ("", "manage-cgroups-mode"): ("soft", "full", "strict", "ignore"),
    ("", "empty-ns"): ("network",),
    ("", "network-lock"): ("iptables", "nftables", "skip"),
    ("list", "format"): ("table", "json"),
    ("ps", "format"): ("table", "json"),
    ("explain", "format"): ("text", "json"),
    ("checkpoint", "format"): ("text", "json"),
    ("restore", "format"): ("text", "json"),
}
SIGNALS = ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "TSTP", "WINCH"]

# Verbs whose first argument is no container, and what it is instead.
OTHER_ARGUMENTS = {"explain": "directory", "create": "", "run": "", "restore": "", "call": ""}


def verbs() -> list[Verb]:
    """The verbs, in the order of the help."""
    return [main.load(name)[0] for name in main.VERBS]


def shown(flags: tuple[Flag, ...]) -> list[Flag]:
    """The flags that the help lists."""
    return [flag for flag in flags if flag.help_text]


def global_flags() -> list[Flag]:
    """What may stand before the verb."""
    return shown(FLAGS)


def takes_argument(flag: Flag) -> bool:
    """Whether the next word is the flag's value."""
    return flag.kind not in (BOOL, OPTIONAL)


def choices(verb: str, flag: Flag) -> tuple[str, ...]:
    """The words that a flag's value can be; none where it is anything else.

    Args:
        verb: its verb, empty for a global flag.
    """
    return CHOICES.get((verb, flag.name)) or CHOICES.get(("", flag.name)) or ()


def value_kind(flag: Flag) -> str:
    """What a flag's value names: "directory", "file", or nothing that a shell could complete."""
    return "directory" if flag.name in DIRECTORIES else "file" if flag.name in FILES else ""


def argument_kind(verb: Verb) -> str:
    """What a verb's first argument is: "container", "directory", or nothing that a shell could complete."""
    return OTHER_ARGUMENTS.get(verb.name, "container" if verb.minimum else "")
