"""The one tree of errors.

Every failure, from the C prelude to the API, is the same structure: step, syscall, errno, path or JSON path, message,
hint. It crosses processes as data (`as_dict`, `from_dict`, and the ERR_* attributes of the start-up protocol), never
as a pickle and never as text that somebody has to parse.

Messages are lower case, without a full stop, and name the path or the value.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIELDS = ("step", "syscall", "errno", "path", "json_path", "message", "hint")


def strerror(number: int) -> str:
    """Text of an errno in the field's spelling: lower case, as Go's syscall package and so runc prints it."""
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


class CtrError(Exception):
    """Any failure that ctrun reports.

    Args:
        message: what went wrong, in one line; may be empty when step, path and errno say it all.
        step: what was being done ("mount proc", "pivot root").
        syscall: name of the system call that failed.
        errno: its errno, 0 if there is none.
        path: the file that it concerns.
        json_path: the place in config.json or process.json that it concerns, such as `.linux.namespaces[2].type`.
        hint: what the user could do about it, for a human reader.
    """

    exit_code = 1

    def __init__(
        self,
        message: str = "",
        *,
        step: str = "",
        syscall: str = "",
        errno: int = 0,
        path: str = "",
        json_path: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.syscall = syscall
        self.errno = errno
        self.path = path
        self.json_path = json_path
        self.hint = hint

    def __str__(self) -> str:
        parts = []
        if self.json_path:
            parts.append(self.json_path)
        if self.step:
            parts.append(self.step)
        what = self.message or self.syscall
        if self.path and self.path not in what and self.path not in self.step:
            what = f"{what} {self.path}" if what else self.path
        if what:
            parts.append(what)
        if self.errno:
            parts.append(strerror(self.errno))
        return ": ".join(parts)

    def within(self, context: str) -> "CtrError":
        """The same error, told as part of something larger, whose name comes first."""
        self.step = f"{context}: {self.step}" if self.step else context
        return self

    def as_dict(self) -> "dict[str, Any]":
        """The error as plain data, empty fields left out; `kind` is the class name."""
        data: dict[str, Any] = {"kind": type(self).__name__}
        for name in FIELDS:
            value = getattr(self, name)
            if value:
                data[name] = value
        return data

    @classmethod
    def from_os_error(cls, error: OSError, step: str = "", path: str = "", message: str = "") -> "CtrError":
        """The structure for an OSError; kernel wrappers put the syscall's name on it as `.syscall`."""
        filename = error.filename if isinstance(error.filename, str) else ""
        return cls(
            message,
            step=step,
            syscall=getattr(error, "syscall", ""),
            errno=error.errno or 0,
            path=path or filename,
        )


class ConfigError(CtrError):
    """Raised by the loader and the validator: config.json or process.json asks for something that is not possible.

    Attributes:
        problems: everything that was found wrong, as (JSON path, message); the error's own text names the first.
    """

    problems: "tuple[tuple[str, str], ...] | list[tuple[str, str]]" = ()


class UsageError(CtrError):
    """Raised by the command line: a flag or an argument is wrong."""


class ContainerExists(CtrError):
    """Raised by create, run and restore: the id is taken; delete the container or choose another id."""


class ContainerNotFound(CtrError):
    """Raised by every verb on an existing container: there is no state of that id under this root."""


class WrongState(CtrError):
    """Raised by a verb on a container whose status does not allow it."""


class SetupError(CtrError):
    """Raised by the setup worker: a mount, a device, a mask, a sysctl of the container could not be made."""


class InitError(CtrError):
    """Raised on behalf of ctr-init: a namespace, an id map or a setting of the process itself failed."""


class HookError(CtrError):
    """Raised by whoever ran a hook: it failed, could not be run, or took too long."""


class CgroupError(CtrError):
    """Raised by the cgroup managers: a cgroup could not be made, entered, changed or removed."""


class ProtocolError(CtrError):
    """Raised by the channels: a peer said something that the protocol does not allow here, or vanished."""


class StateError(CtrError):
    """Raised by the state directory: state.json is unreadable, of an unknown version, or locked for too long."""


class CriuError(CtrError):
    """Raised by the CRIU bridge: CRIU is not there, too old, refused, failed or died.

    Attributes:
        details: the errors in CRIU's log, each after the lines that led to it.
    """

    details: "tuple[str, ...]" = ()

    def as_dict(self) -> "dict[str, Any]":
        """As of every error, with the lines of the log as `details`."""
        data = super().as_dict()
        if self.details:
            data["details"] = list(self.details)
        return data


class NotSupported(CtrError):
    """Raised where this kernel, this build or this release lacks something; the message names what is missing."""


KINDS: "dict[str, type[CtrError]]" = {
    kind.__name__: kind
    for kind in (
        CtrError,
        ConfigError,
        UsageError,
        ContainerExists,
        ContainerNotFound,
        WrongState,
        SetupError,
        InitError,
        HookError,
        CgroupError,
        ProtocolError,
        StateError,
        CriuError,
        NotSupported,
    )
}


def from_dict(data: "dict[str, Any]") -> CtrError:
    """The error that `as_dict` described; an unknown kind comes back as CtrError.

    Raises:
        nothing: data from another process is never trusted to be complete.
    """
    kind = KINDS.get(str(data.get("kind", "")), CtrError)
    number = data.get("errno", 0)
    fields = {name: str(data.get(name, "")) for name in FIELDS if name != "errno"}
    error = kind(
        fields.pop("message"),
        errno=number if isinstance(number, int) else 0,
        **fields,
    )
    details = data.get("details")
    if isinstance(error, CriuError) and isinstance(details, list):
        error.details = tuple(str(line) for line in details)
    return error
