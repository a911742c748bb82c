"""Changes to the default configuration, and what validation says of the outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctr_common.errors import ConfigError
from ctr_common.spec import validate
from ctr_common.spec.default import default_config

Change = Callable[[dict[str, Any]], object]
ONE_ID = [{"containerID": 0, "hostID": 1000, "size": 1}]


def changed(change: Change) -> Any:
    config: Any = default_config()
    change(config)
    return config


def problems_of(config: Any, bundle: Path, rootless: bool = False) -> list[tuple[str, str]]:
    try:
        validate.check(config, str(bundle), rootless=rootless)
    except ConfigError as error:
        found: list[tuple[str, str]] = error.__dict__["problems"]
        return found
    return []


def put(*keys: Any) -> Change:
    """Sets the value at the end of a path of keys, making objects on the way."""
    *way, last, value = keys

    def change(config: dict[str, Any]) -> None:
        target: Any = config
        for key in way:
            target = target[key] if isinstance(target, list) else target.setdefault(key, {})
        target[last] = value

    return change


def drop(*keys: Any) -> Change:
    def change(config: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return change


def without_namespace(kind: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != kind]

    return change


def with_namespace(**entry: str) -> Change:
    return lambda config: config["linux"]["namespaces"].append(entry)


def with_user_namespace(uids: Any = ONE_ID, gids: Any = ONE_ID) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"].update(uidMappings=uids, gidMappings=gids)
        config["mounts"][2]["options"].remove("gid=5")

    return change


def both(*changes: Change) -> Change:
    def change(config: dict[str, Any]) -> None:
        for one in changes:
            one(config)

    return change
