"""Writes the launchers in bin/ from their templates bin/*.in.

usage: launcher.py --python PYTHON --path DIRECTORY… --pack FILE --to DIRECTORY TEMPLATE…

`@PYTHON@` becomes the absolute interpreter, `@PATHS@` the list of directories to append to sys.path, `@PACK@` the file
that scripts/pack.py makes. Where the interpreter's path does not fit a `#!` line, the launcher is a shell script that
execs the rendered stub beside it.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

# execve(2): the line was cut at 127 characters before Linux 5.1, at 255 since
SHEBANG_LIMIT = 127


def write(path: Path, text: str) -> None:
    """Replaces an executable file in one step; leaves it alone when the text is the same.

    Args:
        path: the file.
        text: its contents.
    """
    if path.exists() and path.read_text() == text:
        return
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o755)
    os.replace(new, path)


def render(template: str, python: str, paths: list[str], pack: str) -> tuple[str, str]:
    """The launcher's text and, where it has to be a shell script, the stub's text (else an empty string).

    Args:
        template: contents of a bin/*.in file.
        python: absolute path of the interpreter.
        paths: directories to append to sys.path.
        pack: file to import from.
    """
    stub = template.replace("@PATHS@", repr(paths)).replace("@PACK@", repr(pack)).replace("@PYTHON@", python)
    if len(f"#!{python} -IS") < SHEBANG_LIMIT and not any(c.isspace() for c in python):
        return stub, ""
    return f'#!/bin/sh\nexec {shlex.quote(python)} -I -S {{stub}} "$@"\n', stub


def main() -> int:
    """Renders the templates named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("--path", action="append", default=[])
    parser.add_argument("--pack", required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--installed-as", type=Path, help="the directory that --to will be in the end")
    parser.add_argument("templates", nargs="+", type=Path)
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    final = args.installed_as or args.to
    for template in args.templates:
        name = template.name.removesuffix(".in")
        launcher, stub = render(template.read_text(), args.python, args.path, args.pack)
        if stub:
            write(args.to / f".{name}.py", stub)
            launcher = launcher.format(stub=shlex.quote(str(final / f".{name}.py")))
        write(args.to / name, launcher)
    return 0


if __name__ == "__main__":
    sys.exit(main())
