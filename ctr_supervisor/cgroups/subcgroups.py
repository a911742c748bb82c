"""The `--cgroup` argument of exec: which cgroups below the container's a process goes into."""

from ctr_common.errors import CgroupError, UsageError
from ctr_supervisor.cgroups.hierarchies import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: "Sequence[str]") -> "dict[str, str]":
    """Splits `path` or `controller[,controller]:path` arguments.

    Returns:
        The path for each controller; "" for all of them.

    Raises:
        UsageError: for a controller named twice, or a path without controllers beside others.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        fields = argument.split(":")
        if len(fields) > 2:
            raise UsageError(f"invalid --cgroup argument: {argument}")
        if len(fields) == 1:
            if len(arguments) != 1:
                raise UsageError(f"invalid --cgroup argument: {argument} (missing <controller>: prefix)")
            found[""] = argument
            continue
        for controller in fields[0].split(","):
            if controller in found:
                raise UsageError(f"invalid --cgroup argument(s): controller {controller} specified multiple times")
            found[controller] = fields[1]
    return found


def below(path: str, sub: str) -> str:
    """Path of a sub-cgroup.

    Raises:
        CgroupError: it is not below the container's cgroup.
    """
    joined = join(path, sub)
    if joined != path and not joined.startswith(path + "/"):
        raise CgroupError(f"{sub} is not a sub cgroup path")
    return joined


def choose(paths: "dict[str, str]", cgroup: "str | Sequence[str] | None") -> "dict[str, str]":
    """The container's cgroups with the sub-cgroups that were asked for in their place.

    Raises:
        CgroupError: the container has no cgroup for a controller.
    """
    if not cgroup:
        return paths
    asked = parse((cgroup,) if isinstance(cgroup, str) else cgroup)
    if "" in asked:
        return {controller: below(path, asked[""]) for controller, path in paths.items()}
    chosen = dict(paths)
    for controller, sub in asked.items():
        if controller not in paths or not controller:
            raise CgroupError(f"unknown controller {controller} in --cgroup")
        chosen[controller] = below(paths[controller], sub)
    return chosen
