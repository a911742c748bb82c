"""Collects what is wrong with a configuration, so that one message can name all of it."""

from ctr_common.errors import ConfigError
from ctr_common.fastjson import dumps

# How many further problems the one-line message spells out: all of a file that somebody wrote, but not a line without
# end for a list of a thousand numbers. The line is all that callers of a runtime get to see.
_NAMED = 99


def member(path: str, key: str) -> str:
    """JSON path of a member: `.name`, or `["odd name"]` as jq writes it."""
    if key.isascii() and key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{dumps(key)}]"


class Problems:
    """The problems found so far, in the order of finding.

    `found` holds pairs of JSON path and message.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, message: str) -> None:
        """Adds one: the JSON path (`.process.args[1]`; empty for the whole file) and what is wrong there."""
        # What is quoted from the file may hold a line break, and the log has one line for an error.
        self.found.append((path, message.replace("\n", "\\n").replace("\r", "\\r")))

    def raise_first(self) -> None:
        """Raises the first problem, and the others with it; does nothing if there are none.

        Raises:
            ConfigError: its message is one line that names the others too; `.problems` is the list of pairs.
        """
        if not self.found:
            return
        path, message = self.found[0]
        others = self.found[1:]
        if others:
            named = ", ".join(f"{where or '.'}: {what}" for where, what in others[:_NAMED])
            more = ", …" if len(others) > _NAMED else ""
            message = f"{message} (and {len(others)} more: {named}{more})"
        error = ConfigError(message, json_path=path or ".")
        error.problems = list(self.found)
        raise error
