"""The part of ctrun(1) that follows from the command line: its commands and their options."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ctr_supervisor.cli.parser import BOOL, DURATION, HELP, OPTIONAL, Flag
from ctr_supervisor.cli.verb import Verb
from scripts import command_line

BEGIN = r".\" What follows is written by scripts/pages.py."
VALUE = r"\fIvalue\fR"
END = r".\" End of what scripts/pages.py writes."


def escape(text: str) -> str:
    """Text for roff: a hyphen of a flag stays one that can be copied, and no line becomes a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped[:1] in ("'", ".") else escaped


def flag_lines(flags: Iterable[Flag]) -> list[str]:
    """A tagged paragraph for each flag."""
    lines = []
    for flag in flags:
        value = "" if flag.kind == BOOL else "[=" + VALUE + "]" if flag.kind == OPTIONAL else " " + VALUE
        names = [f"\\-\\-{escape(flag.name)}", *([f"\\-{flag.short}"] if flag.short else [])]
        tag = ", ".join(f"\\fB{name}\\fR{value}" for name in names)
        text = escape(flag.help_text)
        if flag.default and flag.kind != DURATION:
            text += f" (default: {escape(str(flag.default))})"
        lines += [".TP", tag, text[:1].upper() + text[1:] + "."]
    return lines


def paragraphs(description: str) -> list[str]:
    """A verb's description; what is indented there are commands to type."""
    lines = []
    for block in description.split("\n\n"):
        if block.startswith("    "):
            code = textwrap.dedent(block).splitlines()
            lines += [".PP", ".RS 4", ".nf", *(escape(line.removeprefix("# ")) for line in code), ".fi", ".RE"]
        else:
            lines += [".PP", *(escape(line) for line in block.splitlines())]
    return lines[1:]


def verb_lines(verb: Verb) -> list[str]:
    """The subsection of a verb."""
    options = " [\\fIoptions\\fR]" if command_line.shown(verb.flags) else ""
    lines = [f".SS {verb.name}"]
    usages = verb.arguments.split("\n")
    for index, usage in enumerate(usages):
        lines += [f"\\fBctrun {verb.name}\\fR{options} {escape(usage)}".rstrip()]
        if index + 1 < len(usages):
            lines.append(".br")
    lines += [".PP", f"{escape(verb.summary[:1].upper() + verb.summary[1:])}."]
    if verb.description:
        lines += [".PP", *paragraphs(verb.description)]
    return lines + flag_lines(command_line.shown(verb.flags))


def generated() -> str:
    """The sections GLOBAL OPTIONS and COMMANDS."""
    lines = [BEGIN, ".SH GLOBAL OPTIONS", *flag_lines([*command_line.global_flags(), HELP]), ".SH COMMANDS"]
    for verb in command_line.verbs():
        lines += verb_lines(verb)
    return "\n".join([*lines, ".SS help", "\\fBctrun help\\fR [command]", ".PP", "Shows help.", END]) + "\n"


def render(page: str) -> str:
    """The page with its generated part as it would be written now.

    Args:
        page: with BEGIN and END on lines of their own.
    """
    before, _, rest = page.partition(BEGIN + "\n")
    _, _, after = rest.partition(END + "\n")
    return before + generated() + after
