"""The help of the program and of its verbs, for terminals of 80 columns."""

import textwrap

from ctr_supervisor.cli import output, surroundings, version
from ctr_supervisor.cli.parser import BOOL, DURATION, HELP, OPTIONAL, Flag
from ctr_supervisor.cli.quantities import SECOND
from ctr_supervisor.cli.surroundings import PROGRAM
from ctr_supervisor.cli.verb import Verb

WIDTH = 80
# Beyond this the explanation of a flag starts on a line of its own.
COLUMN_MAXIMUM = 30

SUMMARY = "runs OCI containers"

DESCRIPTION = """\
ctrun makes containers as the Open Container Initiative (OCI) specifies them,
and looks after them. It takes the place of runc: same commands, flags, output
and exit codes.

A container comes from a bundle: a directory with a file "config.json", which
says what to run and how, and mostly with the root file system beside it.

    # mkdir -p bundle/rootfs   (and put a root file system there)
    # ctrun spec --bundle bundle
    # ctrun run --bundle bundle <container-id>

"<container-id>" is a name of your choice, unique among the containers of this
host. Without "--bundle" the bundle is the current directory."""


def show(text: str) -> int:
    """Writes a help text; returns the exit status.

    Args:
        text: the help.
    """
    output.write(text)
    return 0


def program(verbs: "list[Verb]") -> str:
    """The help of the program.

    Args:
        verbs: the verbs to list.
    """
    rows = [(each.name, each.summary) for each in verbs]
    rows.append(("help, h", "list the commands, or help on one of them"))
    sections = (
        f"NAME:\n   {PROGRAM} - {SUMMARY}\n\n{DESCRIPTION}",
        f"USAGE:\n   {PROGRAM} [global options] command [command options] [arguments...]",
        "VERSION:\n   " + version.text().removeprefix(f"{PROGRAM} version "),
        "COMMANDS:\n" + _table(rows),
        "GLOBAL OPTIONS:\n" + _table(_flag_rows((*surroundings.FLAGS, HELP))),
    )
    return "\n\n".join(sections) + "\n"


def verb(described: Verb) -> str:
    """The help of a verb.

    Args:
        described: the verb.
    """
    command = f"{PROGRAM} {described.name}" + (" [command options]" if described.flags else "")
    usage = [f"   {command} {arguments}".rstrip() for arguments in described.arguments.split("\n")]
    sections = [
        f"NAME:\n   {PROGRAM} {described.name} - {described.summary}",
        "USAGE:\n" + "\n".join(usage),
    ]
    if described.description:
        sections.append("DESCRIPTION:\n" + textwrap.indent(described.description, "   "))
    rows = _flag_rows(described.flags)
    if rows:
        sections.append("OPTIONS:\n" + _table(rows))
    return "\n\n".join(sections) + "\n"


def _flag_rows(flags: "tuple[Flag, ...]") -> "list[tuple[str, str]]":
    rows = []
    for flag in flags:
        if not flag.help_text:  # accepted for the sake of old callers, and not to be used
            continue
        value = "" if flag.kind == BOOL else "[=value]" if flag.kind == OPTIONAL else " value"
        label = f"--{flag.name}{value}"
        if flag.short:
            label += f", -{flag.short}{value}"
        text = flag.help_text
        if isinstance(flag.default, str) and flag.default:
            text += f' (default: "{flag.default}")'
        elif flag.kind == DURATION and isinstance(flag.default, int):
            text += f" (default: {flag.default // SECOND}s)"
        elif isinstance(flag.default, int):
            text += f" (default: {flag.default})"
        rows.append((label, text))
    return rows


def _table(rows: "list[tuple[str, str]]") -> str:
    column = min(max(len(label) for label, _ in rows), COLUMN_MAXIMUM)
    indent = " " * (3 + column + 2)
    lines = []
    for label, text in rows:
        wrapped = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if len(label) > column:
            lines.append("   " + label)
        else:
            wrapped[0] = f"   {label:{column}}  " + wrapped[0].lstrip()
        lines.extend(wrapped)
    return "\n".join(lines)
