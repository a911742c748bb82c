import os

import pytest

from ctr_common.errors import CtrError
from ctr_supervisor.cli import output


@pytest.fixture
def stdout(monkeypatch):
    """Puts another fd in the place of standard output."""
    fds = []

    def replace(fd):
        fds.append(fd)
        monkeypatch.setattr(output, "STDOUT", fd)

    yield replace
    for fd in fds:
        os.close(fd)


def test_a_reader_who_left_is_not_an_error_of_ours(stdout):
    reading, writing = os.pipe()
    os.close(reading)
    stdout(writing)
    with pytest.raises(output.ReaderGone):
        output.write("text")


def test_a_full_disk_is_told(stdout):
    stdout(os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(CtrError, match="write /dev/stdout: no space left on device"):
        output.write("text")


def test_json_is_that_of_go(capfd):
    output.write_json({"a": ["<&>"], "ü": None}, end="")
    assert capfd.readouterr().out == '{"a":["\\u003c\\u0026\\u003e"],"ü":null}'


def test_bytes_that_are_not_utf8_come_out_as_they_came_in(capfdbinary):
    output.write(os.fsdecode(b"\xff\n"))
    assert capfdbinary.readouterr().out == b"\xff\n"
