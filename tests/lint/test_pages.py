"""The man pages and the shell completions: complete, up to date, and in good order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctr_common.version import VERSION
from ctr_supervisor.cli.parser import HELP
from scripts import command_line, pages

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs/man"
COMPLETIONS = ROOT / "completions"


def run(
    *argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd=cwd, env=env)


@pytest.mark.parametrize("path", list(pages.texts()), ids=lambda path: path.name)
def test_it_is_what_would_be_written_now(path: Path):
    assert path.read_text() == pages.texts()[path], "run scripts/pages.py"


@pytest.mark.needs_command("groff")
@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda path: path.name)
def test_a_page_has_no_mistakes_of_form(page: Path):
    done = run("groff", "-man", "-z", "-ww", page)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["ctrun.1", "ctr-supervisor.8", "ctr-init.8", "ctr-criu-bridge.8"])
def test_there_is_a_page_for_each_program(name: str):
    text = (MAN / name).read_text()
    sections = re.findall(r"^\.SH (.+)$", text, re.MULTILINE)
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"} <= set(sections)


def plain(page: str) -> str:
    """A page without the marks of roff."""
    text = (MAN / page).read_text().replace("\\-", "-").replace("\\&", "")
    return re.sub(r"\\f[BIR]", "", text)


def test_every_verb_and_flag_stands_in_the_page():
    text = plain("ctrun.1")
    for verb in command_line.verbs():
        section = text.partition(f"\n.SS {verb.name}\n")[2].partition("\n.SS ")[0]
        assert section, verb.name
        assert [flag.name for flag in command_line.shown(verb.flags) if f"\n--{flag.name}" not in section] == []
    assert [flag.name for flag in command_line.global_flags() if f"\n--{flag.name}" not in text] == []


@pytest.mark.parametrize(
    ("page", "program"),
    [("ctr-supervisor.8", "ctr_supervisor.service.main"), ("ctr-criu-bridge.8", "ctr_criu_bridge.main")],
)
def test_every_flag_that_the_help_of_a_service_shows_stands_in_its_page(page: str, program: str):
    def shown(*verb: str) -> str:
        script = f"from {program} import main; main(sys.argv[1:])"
        return run(sys.executable, "-c", f"import sys; {script}", *verb, "--help", cwd=ROOT).stdout

    text, top = plain(page), shown()
    verbs = re.findall(r"^    ([a-z][a-z-]+)(?: |$)", top.partition("positional arguments:")[2], re.MULTILINE)
    helps = "\n".join([top, *map(shown, verbs)])
    flags = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", helps, re.MULTILINE))
    assert len(flags) > 3
    assert sorted(flag for flag in flags if not re.search(rf"{flag}(?![a-z-])", text)) == []
    assert [verb for verb in verbs if f"\n.SS {verb}\n" not in text] == []


@pytest.mark.parametrize("name", ["ctrun.bash", "_ctrun", "ctrun.fish"])
def test_every_verb_and_flag_is_completed(name: str):
    text = (COMPLETIONS / name).read_text()
    long = "-l {}" if name.endswith(".fish") else "--{}"
    for verb in command_line.verbs():
        assert re.search(rf"\b{verb.name}\b", text), verb.name
        for flag in [*command_line.shown(verb.flags), *command_line.global_flags(), HELP]:
            assert re.search(re.escape(long.format(flag.name)) + r"(?![a-z-])", text), flag.name


@pytest.mark.parametrize(("shell", "name"), [("bash", "ctrun.bash"), ("zsh", "_ctrun"), ("fish", "ctrun.fish")])
def test_a_completion_parses(shell: str, name: str):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    done = run(shell, "-n", COMPLETIONS / name)
    assert (done.returncode, done.stderr) == (0, "")


FAKE = """\
#!/bin/sh
echo "$*" > "$0.asked"
echo web
echo worker
"""

CASES = [
    ("ctrun ru", {"run"}),
    ("ctrun --lo", {"--log", "--log-format"}),
    ("ctrun --log-format j", {"json"}),
    ("ctrun run --pre", {"--preserve-fds"}),
    ("ctrun --root /r --debug state w", {"web", "worker"}),
    ("ctrun kill web KI", {"KILL"}),
    ("ctrun ps --format ta", {"table"}),
    ("ctrun help upd", {"update"}),
    ("ctrun run --bundle /us", {"/usr/"}),
]


@pytest.fixture
def fake(directory: Path) -> Path:
    """A ctrun that knows two containers, alone on a PATH of its own beside the system's."""
    program = directory / "ctrun"
    program.write_text(FAKE)
    program.chmod(0o755)
    return program


@pytest.mark.needs_command("bash")
@pytest.mark.parametrize(("typed", "wanted"), CASES)
def test_bash_completes(fake: Path, typed: str, wanted: set[str]):
    words = " ".join(f"'{word}'" for word in [str(fake), *typed.split()[1:]])
    script = (
        f"source '{COMPLETIONS}/ctrun.bash'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _ctrun; "
    )
    done = run("bash", "-c", script + 'printf "%s\\n" "${COMPREPLY[@]}"')
    assert (set(done.stdout.split()), done.stderr) == ({word.rstrip("/") for word in wanted}, "")
    if "--root" in typed:
        assert fake.with_name("ctrun.asked").read_text() == "--root /r list --quiet\n"


# without a UTF-8 locale it prints spaces as bytes of another encoding
FISH = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize(("typed", "wanted"), CASES)
def test_fish_completes(fake: Path, typed: str, wanted: set[str]):
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    path = f"set PATH {fake.parent} $PATH; source '{COMPLETIONS}/ctrun.fish'; complete -C '{typed}'"
    done = run("fish", "--no-config", "-c", path, env=FISH | {"HOME": str(fake.parent)})
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == wanted, done.stderr


PROGRAMS = ("ctrun", "ctr-init", "ctr-init-setup", "ctr-supervisor", "ctr-criu-bridge")
HELPS = [(program,) for program in PROGRAMS] + [("ctrun", verb.name) for verb in command_line.verbs()]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_fits_a_terminal_of_80_columns(words: tuple[str, ...]):
    done = run(ROOT / "bin" / words[0], *words[1:], "--help", env={"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_tells_its_version(program: str):
    done = run(ROOT / "bin" / program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION in done.stdout.splitlines()[0]
