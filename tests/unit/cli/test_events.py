"""The command line of `events`."""

from __future__ import annotations

import pytest

from ctr_common.errors import UsageError
from ctr_supervisor.cli import events, parser
from ctr_supervisor.cli import help as help_text


def interval(*arguments: str) -> int:
    return parser.parse([*arguments, "id"], events.VERB.flags).integer("interval")


def test_statistics_come_every_five_seconds():
    assert interval() == 5 * 10**9
    assert "(default: 5s)" in " ".join(help_text.verb(events.VERB).split())


def test_the_interval_is_a_duration_of_go():
    assert interval("--interval", "1m0.5s") == 60_500_000_000


@pytest.mark.parametrize("text", ["5", "x", ""])
def test_another_interval_is_refused_as_runc_does(text: str):
    with pytest.raises(UsageError, match=f'^invalid value "{text}" for flag -interval: parse error$'):
        interval("--interval", text)
