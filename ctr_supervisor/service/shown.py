"""`ctrun list` and `ctrun state`, answered by the supervisor itself from what it knows."""

from collections.abc import Sequence

from ctr_common.errors import CtrError
from ctr_supervisor.cli import list as list_verb
from ctr_supervisor.cli import output, parser, surroundings
from ctr_supervisor.cli import state as state_verb
from ctr_supervisor.service.registry import Registry

VERBS = {"list", "state"}
# Global flags that have nothing to do with what these verbs print.
WITHOUT_EFFECT = {"root", "supervisor", "systemd-cgroup", "rootless", "criu"}


def answer(argv: Sequence[str], default_root: str, registry: Registry) -> str | None:
    """What the command line prints, or None for one that a worker has to look at: another verb, root, or a mistake.

    Args:
        argv: with the program's name.
        default_root: state root of a client that names none; "" where that depends on more than is known here.
        registry: of the supervisor's root.
    """
    try:
        given = parser.parse(argv[1:], surroundings.FLAGS)
        if not given.rest or given.rest[0] not in VERBS or not is_plain(given):
            return None
        root = given.string("root") if given.has("root") else default_root
        if root != registry.root:
            return None
        if given.rest[0] == "list":
            return listed(given.rest[1:], registry)
        return stated(given.rest[1:], registry)
    except CtrError:
        # A worker says it better.
        return None


def is_plain(given: parser.Arguments) -> bool:
    """Whether no flag asks for anything but the verb."""
    return not any(given.has(flag.name) for flag in surroundings.FLAGS if flag.name not in WITHOUT_EFFECT) and not (
        given.boolean("help")
    )


def listed(arguments: Sequence[str], registry: Registry) -> str | None:
    """What `list` prints."""
    given = parser.parse(arguments, list_verb.VERB.flags)
    form = given.string("format")
    if given.boolean("help") or given.rest or form not in list_verb.FORMATS:
        return None
    warnings: list[str] = []
    text = list_verb.render(registry.describe_all(warnings.append), given.boolean("quiet"), form)
    # These belong into the client's log.
    return None if warnings else text


def stated(arguments: Sequence[str], registry: Registry) -> str | None:
    """What `state` prints."""
    given = parser.parse(arguments, state_verb.VERB.flags)
    if given.boolean("help") or len(given.rest) != 1:
        return None
    return output.as_json(registry.describe(given.rest[0]), "  ", end="")
