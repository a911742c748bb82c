import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ctr_common.errors import CtrError
from ctr_common.version import SPEC_VERSION, VERSION
from ctr_supervisor.cli import features, main, output

ROOT = Path(__file__).parents[3]


def messages(text):
    """The msg of each line, whichever it is that a log line has before it."""
    return [line.partition(" msg=")[2] for line in text.splitlines()]


@pytest.fixture(autouse=True)
def own_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_a_verb_the_help_is_printed(capfd):
    assert main.main([]) == 0
    assert capfd.readouterr().out.startswith("NAME:\n   ctrun - ")


@pytest.mark.covers("global --help")
@pytest.mark.parametrize("arguments", [["help"], ["h"], ["-h"], ["--help"], ["--help", "list"], [""], ["help", "help"]])
def test_there_are_several_ways_to_the_help(arguments, capfd):
    assert main.main(arguments) == 0
    assert "\nCOMMANDS:\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["list", "-h"], ["help", "list"], ["h", "list", "kill"], ["list", "--help", "x"]]
)
def test_there_are_several_ways_to_the_help_of_a_verb(arguments, capfd):
    assert main.main(arguments) == 0
    assert capfd.readouterr().out.startswith("NAME:\n   ctrun list - ")


@pytest.mark.parametrize("arguments", [["nosuch"], ["nosuch", "-x"], ["help", "nosuch"], ["-"]])
def test_an_unknown_verb_has_an_exit_status_of_its_own(arguments, capfd):
    assert main.main(arguments) == 3
    assert messages(capfd.readouterr().err)[0].startswith("\"No help topic for '")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create"], r'"ctrun: \"create\" requires exactly 1 argument(s)"'),
        (["list", "x"], r'"ctrun: \"list\" requires exactly 0 argument(s)"'),
        (["kill"], r'"ctrun: \"kill\" requires a minimum of 1 argument(s)"'),
        (["kill", "a", "b", "c"], r'"ctrun: \"kill\" requires a maximum of 2 argument(s)"'),
        (["exec"], r'"ctrun: \"exec\" requires a minimum of 1 argument(s)"'),
    ],
)
def test_a_wrong_number_of_arguments_prints_the_verbs_help(arguments, message, capfd):
    assert main.main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out.startswith(f"Incorrect Usage.\n\nNAME:\n   ctrun {arguments[0]} - ")
    assert messages(printed.err) == [message]


def test_an_unknown_flag_of_a_verb_prints_the_verbs_help(capfd):
    assert main.main(["list", "--foo"]) == 1
    printed = capfd.readouterr()
    assert printed.out.startswith("Incorrect Usage: flag provided but not defined: -foo\n\nNAME:\n   ctrun list - ")
    assert messages(printed.err) == ['"flag provided but not defined: -foo"']


def test_an_unknown_global_flag_prints_the_programs_help(capfd):
    assert main.main(["--foo", "list"]) == 1
    printed = capfd.readouterr()
    assert printed.out.startswith("Incorrect Usage. flag provided but not defined: -foo\n\nNAME:\n   ctrun - ")
    assert messages(printed.err) == ['"flag provided but not defined: -foo"']


def test_two_forms_of_a_global_flag_are_refused(capfd):
    assert main.main(["-v", "--version"]) == 1
    assert capfd.readouterr().out.startswith("Cannot use two forms of the same flag: v version\nNAME:\n")


@pytest.mark.covers("global --version")
@pytest.mark.parametrize("arguments", [["-v"], ["--version"], ["-version", "list"]])
def test_the_version_has_the_shape_that_engines_parse(arguments, capfd):
    assert main.main(arguments) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == f"ctrun version {VERSION}"
    assert sum("version" in line for line in lines) == 1
    assert all(": " in line for line in lines[1:])


def test_the_version_is_that_of_the_package():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_specification_is_the_one_of_the_engine():
    from ctr_supervisor.engine.container import OCI_VERSION

    assert SPEC_VERSION == OCI_VERSION


def test_errors_go_to_the_log_file_and_plainly_to_standard_error(tmp_path, capfd):
    path = tmp_path / "log"
    assert main.main(["--log", str(path), "--log-format", "json", "create"]) == 1
    assert capfd.readouterr().err == 'ctrun: "create" requires exactly 1 argument(s)\n'
    line = json.loads(path.read_text())
    assert (line["level"], line["msg"]) == ("error", 'ctrun: "create" requires exactly 1 argument(s)')


def test_an_unknown_log_format_is_refused(capfd):
    assert main.main(["--log-format", "xml", "list"]) == 1
    assert messages(capfd.readouterr().err) == ['"invalid log-format: xml"']


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path, capfd):
    assert main.main(["--log", str(tmp_path / "no/log"), "list"]) == 1
    assert messages(capfd.readouterr().err) == [f'"open {tmp_path}/no/log: no such file or directory"']


def test_a_message_keeps_its_line_end_out_of_the_plain_copy(tmp_path, capfd):
    assert main.main(["--log", str(tmp_path / "log"), "nosuch"]) == 3
    assert capfd.readouterr().err == "No help topic for 'nosuch'\n"


def fail_with(error, monkeypatch):
    def run(*_):
        raise error

    monkeypatch.setattr(features, "run", run)
    return main.main(["features"])


def test_hints_are_for_terminals_alone(monkeypatch, capfd):
    assert fail_with(CtrError("broken", hint="mend it"), monkeypatch) == 1
    assert "mend it" not in capfd.readouterr().err
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    fail_with(CtrError("broken", hint="mend it"), monkeypatch)
    assert capfd.readouterr().err.endswith("hint: mend it\n")


def test_an_interrupt_is_quiet(monkeypatch, capfd):
    assert fail_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capfd.readouterr().err == ""


def test_a_system_call_that_failed_unforeseen_is_told_with_its_path(monkeypatch, capfd):
    assert fail_with(FileNotFoundError(2, "No such file", "/no/such"), monkeypatch) == 1
    assert messages(capfd.readouterr().err) == ['"/no/such: no such file or directory"']


def test_a_broken_pipe_inside_is_an_error_like_any_other(monkeypatch, capfd):
    assert fail_with(BrokenPipeError(32, "Broken pipe"), monkeypatch) == 1
    assert messages(capfd.readouterr().err) == ['"broken pipe"']


def test_a_bug_is_one_line_and_its_traceback_needs_debug(monkeypatch, capfd):
    assert fail_with(ZeroDivisionError("by zero"), monkeypatch) == 1
    assert messages(capfd.readouterr().err) == ['"internal error: ZeroDivisionError: by zero"']
    assert main.main(["--debug", "features"]) == 1
    assert "level=debug" in capfd.readouterr().err


def test_output_that_cannot_be_written_is_an_error(monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(output, "STDOUT", full.fileno())
        assert main.main(["--version"]) == 1
    assert messages(capfd.readouterr().err) == ['"write /dev/stdout: no space left on device"']


def test_output_that_nobody_reads_is_quiet(monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(output, "STDOUT", writing)
    try:
        assert main.main(["--help"]) == 141
    finally:
        os.close(writing)
    assert capfd.readouterr().err == ""


def test_closed_standard_fds_are_no_place_for_other_files(tmp_path):
    program = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from ctr_supervisor.cli import main\n"
        "status = main.main(sys.argv[1:])\n"
        "print(status, os.readlink('/proc/self/fd/0'), os.readlink('/proc/self/fd/2'), file=open('seen', 'w'))\n"
    )
    script = 'exec "$0" -I -S -c "$@" <&- 2>&-'
    arguments = [str(ROOT), "--log", "log", "nosuch"]
    subprocess.run(["sh", "-c", script, sys.executable, program, *arguments], check=True, timeout=30)
    assert (tmp_path / "seen").read_text() == "3 /dev/null /dev/null\n"
    assert "No help topic" in (tmp_path / "log").read_text()


# Each further module costs every command milliseconds.
START_UP = {
    "_collections_abc",
    "_json",
    "_stat",
    "errno",
    "fcntl",
    "genericpath",
    "os",
    "os.path",
    "posixpath",
    "stat",
}


def test_finding_a_verb_imports_little():
    program = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from ctr_supervisor.cli import main\n"
        "for name in main.VERBS: main.load(name)\n"
        "print(*(name for name in set(sys.modules) - before if not name.startswith('ctr_')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT)], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()) <= START_UP


@pytest.mark.parametrize("name", main.VERBS)
def test_every_verb_describes_itself(name):
    verb, run = main.load(name)
    assert verb.name == name
    assert callable(run)
    names = [each for flag in verb.flags for each in flag.names()]
    assert len(names) == len(set(names))


@pytest.mark.covers("{name} --help")
@pytest.mark.parametrize("name", main.VERBS)
def test_every_verb_shows_its_help(name, capfd):
    assert main.main([name, "--help"]) == 0
    assert capfd.readouterr().out.startswith(f"NAME:\n   ctrun {name} - ")


@pytest.mark.parametrize("name", ["", *main.VERBS])
def test_the_help_fits_eighty_columns(name, capfd):
    main.main(["help", name])
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_the_arguments_are_those_of_the_process_by_default(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["ctrun", "-v"])
    assert main.main() == 0
    assert "ctrun version" in capfd.readouterr().out
