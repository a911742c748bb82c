"""Reads config.json and process.json and checks the types of all that the specification knows."""

import marshal
import os
import stat

from ctr_common import fastjson
from ctr_common.errors import ConfigError
from ctr_common.spec import schema
from ctr_common.spec.problems import Problems, member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ctr_common.spec.types import Config, Process, Resources

    # A place in the document: (parent, key or index); rendered only when there is something to say about it.
    Place: TypeAlias = tuple["Place", "str | int"] | None

CONFIG_NAME = "config.json"
# Configurations that passed, by their text, each as marshal so that nobody gets another's object; the oldest goes.
KEPT_MAX = 16
KEPT_SIZE = 64 << 10  # bytes of text
_found_right: "dict[bytes, bytes] | None" = None

SIZE_LIMIT = 64 << 20  # bytes; an honest file has some tens of thousands


def load_config(bundle: str) -> "Config":
    """The configuration of a bundle.

    Args:
        bundle: its directory.

    Returns:
        the object of config.json. Unknown properties are kept; a known property that is null is dropped, because
        Go writes and reads null for what is not set.

    Raises:
        ConfigError: the file is missing, too large, no JSON, or has a wrong type; then `.problems` lists all of them
            as (JSON path, message).
    """
    path = os.path.join(bundle, CONFIG_NAME)
    try:
        data = read_file(path)
    except FileNotFoundError:
        if not os.path.isdir(bundle):
            raise ConfigError(syscall="chdir", errno=2, path=bundle) from None
        raise ConfigError(f"JSON specification file {CONFIG_NAME} not found") from None
    except OSError as error:
        raise ConfigError(f"read {path}", errno=error.errno or 0) from error
    if _found_right is None:
        return parse_config(data, path)
    kept = _found_right.get(data)
    if kept is not None:
        copy: Config = marshal.loads(kept)
        return copy
    config = parse_config(data, path)
    if len(data) <= KEPT_SIZE:
        if len(_found_right) == KEPT_MAX:
            del _found_right[next(iter(_found_right))]
        value: Any = config
        _found_right[data] = marshal.dumps(value)
    return config


def parse_config(data: bytes, path: str) -> "Config":
    """The configuration in a text; see `load_config`."""
    config: Config = parse(data, schema.CONFIG, path)
    return config


def keep_what_is_right() -> None:
    """Has `load_config` remember texts that passed: for a process that is given the same ones again and again."""
    global _found_right
    _found_right = {}


def config_of(value: "Any") -> "Config":
    """The configuration that a program gives as an object; a copy, checked like a file.

    Args:
        value: what could be in config.json.

    Raises:
        ConfigError: it holds what JSON has no word for, or has a wrong type.
    """
    config: Config = _checked(value, schema.CONFIG, "configuration")
    return config


def process_of(value: "Any") -> "Process":
    """A process that a program gives as an object; see `config_of`. JSON paths start at the process."""
    process: Process = _checked(value, schema.PROCESS, "process")
    return process


def resources_of(value: "Any") -> "Resources":
    """Limits that a program gives as an object; see `config_of`. JSON paths start at the resources."""
    resources: Resources = _checked(value, schema.RESOURCES, "resources")
    return resources


def _checked(value: "Any", node: "schema.Node", name: str) -> "Any":
    try:
        data = fastjson.dumps(value).encode("utf-8", "surrogateescape")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the {name} is no JSON: {error}") from None
    return parse(data, node, name)


def load_process(path: str) -> "Process":
    """The process of a file in the form of config.json's `process` (`exec --process`).

    Raises:
        ConfigError: as `load_config`; JSON paths start at the process (`.args[0]`).
    """
    try:
        data = read_file(path, or_pipe=True)
    except OSError as error:
        raise ConfigError(f"open {path}", errno=error.errno or 0) from error
    process: Process = parse(data, schema.PROCESS, path)
    return process


def read_file(path: str, or_pipe: bool = False) -> bytes:
    """The contents of a regular file of at most SIZE_LIMIT bytes.

    Args:
        path: the file.
        or_pipe: whoever names a pipe (a shell's `<(...)`, /dev/stdin) means to wait for what comes out of it.

    Raises:
        OSError: it cannot be read.
        ConfigError: it is no regular file, or too large.
    """
    # O_NONBLOCK: a fifo in its place must not hold us.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if or_pipe else os.O_NONBLOCK))
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"read {path}: is a directory")
        if not (stat.S_ISREG(status.st_mode) or (or_pipe and stat.S_ISFIFO(status.st_mode))):
            raise ConfigError(f"{path}: not a regular file")
        chunks = []
        left = SIZE_LIMIT + 1
        while left and (chunk := os.read(fd, min(left, max(status.st_size + 1, 4096)))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(fd)
    if not left:
        raise ConfigError(f"{path}: larger than {SIZE_LIMIT >> 20} MiB")
    return b"".join(chunks)


def parse(data: bytes, node: "schema.Node", name: str) -> "Any":
    """The value of a JSON text, checked against a node of the schema, without the nulls of known properties.

    Args:
        data: the text.
        node: its shape.
        name: what to call the text in a message about its syntax.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        value = fastjson.loads(data)
    except fastjson.JSONError as error:
        raise ConfigError(f"{name}: {error}") from None
    if type(value) is not dict:
        raise ConfigError(f"{name}: expected an object, got {kind(value)}")
    problems = Problems()
    check(node, value, None, problems)
    # No system call takes a string with a NUL in it, so a later step would see only its beginning.
    if not problems.found and b"\\u0000" in data:
        _refuse_nul(node, value, None, problems)
    problems.raise_first()
    return value


def check(node: "schema.Node", value: "Any", place: "Place", problems: "Problems") -> None:
    """Checks a value against a node of the schema and drops the known properties that are null.

    Args:
        node: the shape.
        value: what `fastjson.loads` made.
        place: where it stands; None for the top.
        problems: takes what is found.
    """
    if isinstance(node, str):
        _check_scalar(node, value, place, problems)
    elif node[0] == "array":
        _check_array(node[1], value, place, problems)
    elif type(value) is not dict:
        problems.add(render(place), f"expected an object, got {kind(value)}")
    elif node[0] == "map":
        of = node[1]
        for key, item in value.items():
            check(of, item, (place, key), problems)
    else:
        _check_object(node, value, place, problems)


def _check_object(
    node: "tuple[str, dict[str, schema.Node], tuple[str, ...]]",
    value: "dict[str, Any]",
    place: "Place",
    problems: "Problems",
) -> None:
    known = node[1]
    nulls = strange = None
    for key, item in value.items():
        of = known.get(key)
        if of is None:
            strange = True
            continue
        if item is None:
            nulls = [*nulls, key] if nulls else [key]
        elif of == "string":  # the two most frequent ones without a call
            if type(item) is not str:
                check(of, item, (place, key), problems)
        else:
            check(of, item, (place, key), problems)
    for key in nulls or ():
        del value[key]
    if strange:
        _check_names(known, value, place, problems)
    for key in node[2]:
        if key not in value:
            problems.add(render((place, key)), "is missing")


def _check_names(
    known: "dict[str, schema.Node]", value: "dict[str, Any]", place: "Place", problems: "Problems"
) -> None:
    """Takes a property whose name has letters of another case for the one that is meant, if that is not there itself.

    Go reads JSON in this way, so there are configurations like that, and `nonewprivileges` is not to be overlooked.
    """
    meant = {name.lower(): name for name in known}
    for key in [key for key in value if key not in known]:
        name = meant.get(key.lower())
        if name is not None and name not in value:
            item = value.pop(key)
            if item is not None:
                check(known[name], item, (place, key), problems)
                value[name] = item


def _check_array(of: "Any", value: "Any", place: "Place", problems: "Problems") -> None:
    if type(value) is not list:
        problems.add(render(place), f"expected an array, got {kind(value)}")
    elif of == "string" and set(map(type, value)) <= {str}:
        return
    else:
        for index, item in enumerate(value):
            check(of, item, (place, index), problems)


_ARTICLE = {str: "a string", bool: "a boolean", int: "an integer"}


def _check_scalar(name: str, value: "Any", place: "Place", problems: "Problems") -> None:
    wanted: Any
    wanted, low, high = schema.SCALARS[name]
    if type(value) is not wanted:
        # A fraction or an exponent makes a float, which no property takes; Go refuses 1e3 for an integer too.
        got = str(value) if type(value) is float and wanted is int else kind(value)
        problems.add(render(place), f"expected {_ARTICLE[wanted]}, got {got}")
    elif wanted is int and not low <= value <= high:
        problems.add(render(place), f"expected an integer from {low} to {high}, got {_brief(value)}")


def _brief(value: int) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}… ({len(text)} digits)"


def _refuse_nul(node: "schema.Node", value: "Any", place: "Place", problems: "Problems") -> None:
    if isinstance(value, str):
        if "\0" in value:
            problems.add(render(place), "contains a NUL character")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_nul(node[1], item, (place, index), problems)
    elif isinstance(value, dict):
        for key, item in value.items():
            of: Any = node[1]
            if isinstance(of, dict):
                of = of.get(key)
            # Annotations and unknown properties reach no system call.
            if of is None or (place is None and key == "annotations"):
                continue
            if "\0" in key:
                problems.add(render(place), "has a key with a NUL character")
            _refuse_nul(of, item, (place, key), problems)


def render(place: "Place") -> str:
    """The JSON path of a place, as jq writes it: `.process.args[1]`."""
    if place is None:
        return ""
    parent, key = place
    if isinstance(key, int):
        return f"{render(parent)}[{key}]"
    return member(render(parent), key)


def kind(value: "Any") -> str:
    """JSON's name for the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
