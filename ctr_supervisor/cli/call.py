"""`ctrun call`."""

from ctr_common.errors import CtrError, ProtocolError, UsageError
from ctr_supervisor.cli import output
from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ctr_common.wire import Packet, Wire
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "call",
    "send one message to a running supervisor, and print the answer",
    arguments="<type> [key=value...]",
    description="""\
Sends a request as docs/PROTOCOL.md describes them, after a hello, and prints
the fields of the answer as JSON on one line. For shell scripts, and to see
what a supervisor says.

A value that is JSON is taken as such: pid=42, force=true, id="42",
resources='{"pids": {"limit": 10}}'. Every other one is a text: signal=TERM.
After "key:=" whatever follows is a text, JSON or not: id:=42.

"subscribe" prints an event on each line, until it is interrupted.

    # ctrun call state id=web | jq -r .container.status
    # ctrun call kill id=web signal=TERM
    # ctrun call subscribe id=web""",
    flags=(
        Flag("socket", "the supervisor's socket; without it that of $CTRUN_SUPERVISOR, or of this user"),
        Flag("format", "of a failure: 'text', a line in the log, or 'json', on standard output", default="text"),
        Flag("stdio", "send standard input, output and error along, for the process of a run or an exec", BOOL),
    ),
    minimum=1,
    maximum=None,
)

TEXT, JSON = "text", "json"
SEQ = 1
HELLO_TIMEOUT = 30.0


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Sends the message, and prints what comes of it."""
    form = arguments.string("format")
    if form not in (TEXT, JSON):
        raise UsageError(f"invalid format option: {form}")
    kind = arguments.rest[0]
    fields = parse_fields(arguments.rest[1:])

    from ctr_supervisor.api import connection, operations

    try:
        path = operations.socket_path(arguments.string("socket") or None)
        socket, wire = connection.open_wire(path)
        with socket:
            greet(wire)
            send(wire, kind, fields, stdio=arguments.boolean("stdio"))
            return show(wire, follow=kind == "subscribe")
    except CtrError as error:
        if form != JSON:
            raise
        output.write_json(error.as_dict())
        return 1


def parse_fields(words: "Sequence[str]") -> "dict[str, Any]":
    """The fields of a message.

    Args:
        words: key=value or key:=value each.

    Raises:
        UsageError: one is neither, or a key stands there twice, or is one that every message has.
    """
    from ctr_common import fastjson

    fields: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        value: Any = text
        if key.endswith(":"):
            key = key[:-1]
        else:
            try:
                value = fastjson.loads(text)
            except fastjson.JSONError:
                pass
        if not equals or not key:
            raise UsageError(f"{word!r} is not of the form key=value")
        if key in ("type", "seq", "fds"):
            raise UsageError(f"{key} is not a field to be given")
        if key in fields:
            raise UsageError(f"{key} is given twice")
        fields[key] = value
    return fields


def greet(wire: "Wire") -> None:
    """Takes the supervisor's greeting.

    Raises:
        CtrError: it does not want us.
        ProtocolError: it is another kind of server.
    """
    from ctr_supervisor.api import operations

    with wire.expect("hello", timeout=HELLO_TIMEOUT) as packet:
        operations.check_hello(packet)


def send(wire: "Wire", kind: str, fields: "dict[str, Any]", *, stdio: bool) -> None:
    """Sends the request.

    Args:
        kind: its type.
        stdio: with our standard streams.
    """
    fds = dict(zip(("stdin", "stdout", "stderr"), range(3), strict=True)) if stdio else None
    wire.send(kind, fds, **fields, seq=SEQ)


def show(wire: "Wire", *, follow: bool) -> int:
    """Prints what comes; returns the exit status.

    Args:
        follow: go on with events after the answer.

    Raises:
        CtrError: what the supervisor answers.
        ProtocolError: it closed the connection.
    """
    while True:
        packet = wire.receive()
        if packet is None:
            raise ProtocolError("the supervisor closed the connection")
        with packet:
            if packet.type == "error":
                raise packet.error()
            if packet.type == "event":
                output.write_json(plain(packet))
            elif not follow:
                output.write_json(plain(packet))
                return 0


def plain(packet: "Packet") -> "dict[str, Any]":
    """The fields of a message that JSON has words for; fds by their names."""
    fields = {name: value for name, value in packet.body.items() if name not in ("type", "seq")}
    return {
        name: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
