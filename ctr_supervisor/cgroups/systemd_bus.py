"""Talking to a service manager, the system's or a user's, over D-Bus (org.freedesktop.systemd1(5)).

jeepney makes and parses the messages. The socket is driven here, since every wait must have an end, and since a user
namespace needs a form of authentication that it does not have. One connection serves one operation and is closed then.
"""

import os
import select
import struct
import time

from ctr_common.errors import CgroupError, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from jeepney.low_level import Message

    Property = tuple[str, tuple[str, Any]]

SERVICE = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT_TYPES = {"scope": "org.freedesktop.systemd1.Scope", "slice": "org.freedesktop.systemd1.Slice"}

PROPERTIES = "org.freedesktop.DBus.Properties"

UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"

SYSTEM_BUS = "/run/dbus/system_bus_socket"
# Where the manager itself listens, for root, should there be no message bus.
SYSTEM_PRIVATE = "/run/systemd/private"
USER_HINT = "the user needs a session or lingering (loginctl enable-linger), and $XDG_RUNTIME_DIR must name its bus"
# sd_booted(3)
BOOTED = "/run/systemd/system"

CONNECT_TIMEOUT = 10.0
CALL_TIMEOUT = 30.0
# As long as runc waits. A job that takes longer is not a cgroup being made any more.
JOB_TIMEOUT = 30.0

# Nothing that systemd answers is near it; jeepney would take up to 128 MiB.
MESSAGE_MAX = 16 * 1024 * 1024
AUTH_LINE_MAX = 8192


class BusError(CgroupError):
    """Raised for an error reply.

    Attributes:
        name: D-Bus name of the error.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Unreachable(CgroupError):
    """Raised when there is no service manager to talk to."""


def require_systemd() -> None:
    """Makes sure that this host runs systemd.

    Raises:
        NotSupported: it does not.
    """
    if not os.path.isdir(BOOTED) or os.path.islink(BOOTED):
        raise NotSupported(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available: systemd not "
            "running on this host, cannot use systemd cgroups manager",
            hint="leave out --systemd-cgroup",
        )


def system_addresses() -> list[str]:
    """Sockets of the system's manager, the usual one first; a NUL stands before abstract names."""
    given = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "")
    addresses = parse_address(given) if given else [SYSTEM_BUS]
    return [*addresses, SYSTEM_PRIVATE] if os.geteuid() == 0 else addresses


def user_addresses() -> list[str]:
    """Sockets of this user's message bus; empty if the environment names none and none is at the usual place."""
    given = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if given:
        return parse_address(given)
    directories = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"]
    return [path for directory in directories if directory and os.path.exists(path := f"{directory}/bus")][:1]


def parse_address(text: str) -> list[str]:
    """The unix sockets that a D-Bus address names (D-Bus specification, "Server Addresses").

    Raises:
        CgroupError: it is of another form.
    """
    from jeepney.bus import get_connectable_addresses

    try:
        return list(get_connectable_addresses(text))
    except (ValueError, RuntimeError) as error:
        raise Unreachable(f'D-Bus address "{text}": {error}') from None


class Bus:
    """One connection to a service manager; a context manager.

    Args:
        user: the manager of this user instead of the system's.

    Raises:
        Unreachable: there is none.
    """

    def __init__(self, *, user: bool) -> None:
        from jeepney.low_level import Parser

        self._parser = Parser()
        self._serial = 0
        self._version = 0
        self._direct = False
        self._signals: list[Message] = []
        self._socket: Any = None
        addresses = user_addresses() if user else system_addresses()
        self._connect(addresses, "user" if user else "system")

    def __enter__(self) -> "Bus":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up; fine if that has happened."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- the connection

    def _connect(self, addresses: list[str], which: str) -> None:
        problem = "no address is known"
        for address in addresses:
            try:
                self._open(address, time.monotonic() + CONNECT_TIMEOUT)
                return
            except OSError as error:
                self.close()
                problem = f"{address}: {error.strerror or error}"
            except BaseException:
                self.close()
                raise
        # In the message itself, since it is mostly an engine's user who has to know, and engines show no hints.
        hint = f" (hint: {USER_HINT})" if which == "user" else ""
        raise Unreachable(f"failed to connect to the {which} service manager: {problem}{hint}")

    def _open(self, address: str, deadline: float) -> None:
        import socket

        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(CONNECT_TIMEOUT)
        self._socket.connect(address)
        self._authenticate(deadline)
        self._direct = address == SYSTEM_PRIVATE
        if not self._direct:
            self._call_bus("Hello", deadline=deadline)

    def _authenticate(self, deadline: float) -> None:
        """SASL EXTERNAL: the other side knows who we are from the socket (D-Bus specification, "Authentication").

        No name is given, so that what counts is who we are to the other side: in a user namespace we don't know.
        """
        # In one piece, as sd-bus says it: systemd's own socket would take a first call that comes together with BEGIN
        # out of the kernel and answer it only when more comes.
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        line = self._read_line(deadline)
        if line.startswith(b"DATA"):
            line = self._read_line(deadline)
        if not line.startswith(b"OK"):
            raise ConnectionRefusedError(0, f'authentication was refused with "{line.decode("ascii", "replace")}"')

    def _read_line(self, deadline: float) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            if len(line) > AUTH_LINE_MAX:
                raise ConnectionError(0, "the authentication line has no end")
            line += self._read(1, deadline)
        return line[:-2]

    def _read(self, size: int, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(0, "no answer in time")
        data: bytes = self._socket.recv(size)
        if not data:
            raise ConnectionResetError(0, "the connection was closed")
        return data

    def _receive(self, deadline: float) -> "Message":
        """The next message, whatever it is.

        Raises:
            OSError: there is none in time, or the connection is lost.
        """
        try:
            while True:
                message = self._parser.get_next_message()
                if message is not None:
                    return message
                if self._parser.bytes_desired() > MESSAGE_MAX:
                    raise ConnectionError(0, "a message is too long")
                self._parser.add_data(self._read(65536, deadline))
        except (ValueError, LookupError, TypeError, AssertionError, RecursionError, struct.error) as error:
            raise ConnectionError(0, f"a message can't be read: {error}") from None

    # -- calls

    def _call_bus(self, member: str, signature: str = "", body: "tuple[Any, ...]" = (), deadline: float = 0.0) -> None:
        """A call to the message bus itself."""
        from jeepney.wrappers import DBusAddress, new_method_call

        address = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        self._exchange(new_method_call(address, member, signature or None, body), deadline)

    def call(
        self,
        member: str,
        signature: str = "",
        body: "tuple[Any, ...]" = (),
        *,
        interface: str = MANAGER,
        path: str = OBJECT,
    ) -> "Message":
        """Calls a method of the service manager.

        Args:
            member: the method.
            signature: D-Bus types of its arguments.
            body: the arguments.
            interface: of the method.
            path: of the object.

        Raises:
            BusError: it answered with an error.
            CgroupError: it did not answer.
        """
        from jeepney.wrappers import DBusAddress, new_method_call

        message = new_method_call(DBusAddress(path, SERVICE, interface), member, signature or None, body)
        try:
            return self._exchange(message, time.monotonic() + CALL_TIMEOUT)
        except OSError as error:
            raise CgroupError(f"{interface}.{member}: {error.strerror or error}", step="systemd") from None

    def _exchange(self, message: "Message", deadline: float) -> "Message":
        from jeepney.low_level import HeaderFields, MessageType

        self._serial += 1
        try:
            data = message.serialise(serial=self._serial)
        except (ValueError, TypeError, OverflowError, struct.error) as error:
            raise CgroupError(f"a value does not fit its type on the bus: {error}", step="systemd") from None
        self._socket.sendall(data)
        while True:
            reply = self._receive(deadline)
            if reply.header.message_type is MessageType.signal:
                self._signals.append(reply)
            elif reply.header.fields.get(HeaderFields.reply_serial) == self._serial:
                break
        if reply.header.message_type is MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            name = str(reply.header.fields.get(HeaderFields.error_name, ""))
            raise BusError(name, text or name)
        return reply

    def get(self, interface: str, name: str, path: str = OBJECT) -> "Any":
        """The value of a property.

        Args:
            interface: that it belongs to.
            name: of the property.
            path: of the object; the manager if none is given.
        """
        reply = self.call("Get", "ss", (interface, name), interface=PROPERTIES, path=path)
        return reply.body[0][1]

    def version(self) -> int:
        """The service manager's release: 257 of `257.4-1~deb13u1`, `v245` or `"v245"`; -1 if it does not tell."""
        if not self._version:
            text = str(self.get(MANAGER, "Version")).strip('"').removeprefix("v")
            digits = text[: len(text) - len(text.lstrip("0123456789"))]
            self._version = int(digits) if digits else -1
        return self._version

    # -- units

    def start_transient(self, unit: str, properties: "list[Property]") -> None:
        """Makes a unit and waits until it is there.

        Args:
            unit: its name.
            properties: name, and value with its D-Bus type.

        Raises:
            BusError: with the name UNIT_EXISTS if there is one of that name; or the manager refused.
            CgroupError: the unit failed, or was not there in time.
        """
        arguments: tuple[Any, ...] = (unit, "replace", properties, [])
        try:
            result = self._run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
        except BusError as error:
            if error.name != UNIT_EXISTS:
                raise
            # Of a container whose processes ended badly a failed unit may be left, and be in the way.
            self.reset_failed(unit)
            result = self._run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
        if result != "done":
            self.reset_failed(unit)
            raise CgroupError(
                f"error creating systemd unit `{unit}`: got `{result}`"
                if result
                else f"timeout waiting for systemd to create {unit}"
            )

    def stop(self, unit: str) -> None:
        """Ends a unit and everything in it, and forgets that it failed; fine if there is none.

        Raises:
            CgroupError: it did not end in time.
        """
        try:
            if self._run_job("StopUnit", "ss", (unit, "replace")) == "":
                raise CgroupError(f"timed out while waiting for systemd to remove {unit}")
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise
        self.reset_failed(unit)

    def reset_failed(self, unit: str) -> None:
        """Lets systemd drop a unit that failed; fine if it did not."""
        try:
            self.call("ResetFailedUnit", "s", (unit,))
        except BusError:
            pass

    def _run_job(self, member: str, signature: str, body: "tuple[Any, ...]") -> str:
        """Calls a method that starts a job and waits for the job's end.

        Returns:
            The result ("done" is the good one), "" if there was none in time.
        """
        from jeepney.low_level import HeaderFields

        if not self._direct:
            # Before the call, or the signal could be over before we listen.
            rule = f"type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved',path='{OBJECT}'"
            try:
                self._call_bus("AddMatch", "s", (rule,), deadline=time.monotonic() + CALL_TIMEOUT)
            except OSError as error:
                raise CgroupError(f"AddMatch: {error.strerror or error}", step="systemd") from None
        reply = self.call(member, signature, body)
        manager, job = reply.header.fields.get(HeaderFields.sender), reply.body[0]
        deadline = time.monotonic() + JOB_TIMEOUT
        while True:
            signals, self._signals = self._signals, []
            for signal in signals:
                fields = signal.header.fields
                # Anybody on the bus can send a signal straight to us, whatever we asked the bus for.
                known = self._direct or fields.get(HeaderFields.sender) == manager
                if known and fields.get(HeaderFields.member) == "JobRemoved" and signal.body[1] == job:
                    return str(signal.body[3])
            try:
                message = self._receive(deadline)
            except TimeoutError:
                return ""
            except OSError as error:
                raise CgroupError(f"waiting for {job}: {error.strerror or error}", step="systemd") from None
            self._signals.append(message)

    def set_properties(self, unit: str, properties: "list[Property]") -> None:
        """Changes properties of a unit until the next boot.

        Raises:
            BusError: there is no such unit, property or value.
        """
        self.call("SetUnitProperties", "sba(sv)", (unit, True, properties))

    def unit_properties(self, unit: str) -> "dict[str, tuple[str, Any]]":
        """What a scope or slice has of its own kind of properties, with their types; a new one's if there is none."""
        kind = UNIT_TYPES[unit.rpartition(".")[2]]
        path = f"{OBJECT}/unit/{escape(unit)}"
        found: dict[str, tuple[str, Any]] = self.call("GetAll", "s", (kind,), interface=PROPERTIES, path=path).body[0]
        return found

    def attach(self, unit: str, below: str, pid: int) -> None:
        """Has the manager move a process into a unit of its; it checks that the process is ours.

        Args:
            unit: with delegation.
            below: path below the unit's cgroup; "" for itself.
            pid: the process.
        """
        self.call("AttachProcessesToUnit", "ssau", (unit, f"/{below}" if below else "", [pid]))


def escape(name: str) -> str:
    """A unit's name as part of a D-Bus object path (sd_bus_path_encode(3))."""
    safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(
        char if char in safe or (index and char in "0123456789") else "".join(f"_{byte:02x}" for byte in char.encode())
        for index, char in enumerate(name)
    )
