import signal

import pytest

from ctr_common.errors import UsageError
from ctr_supervisor.cli.kill import SIGNALS, parse_signal


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "term", "sigterm", "Sigterm", "15", "+15", "015"])
def test_a_signal_is_a_name_or_a_number(text):
    assert parse_signal(text) == signal.SIGTERM


@pytest.mark.parametrize("text", ["NOSUCH", "SIG", "RTMIN", "IOT", "0x9", "9 ", "SIGSIGTERM"])
def test_an_unknown_signal_is_named(text):
    with pytest.raises(UsageError) as caught:
        parse_signal(text)
    assert str(caught.value) == f'unknown signal "{text}"'


@pytest.mark.parametrize("text", ["0", "-1", "34", "99"])
def test_numbers_are_left_for_the_kernel_to_judge(text):
    assert parse_signal(text) == int(text)


@pytest.mark.parametrize("name", [name for name in SIGNALS if hasattr(signal, f"SIG{name}")])
def test_the_numbers_are_those_of_this_machine(name):
    assert SIGNALS[name] == getattr(signal, f"SIG{name}")
