"""Damaged messages of every kind, in a row, to the client under sanitizers: it ends, and ends in order."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ctr_common.kernel import _kernel
from tests.client.fake import Client, Supervisor, busybox

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_busybox]

MESSAGES: dict[str, dict[str, Any]] = {
    "spawn": {
        "argv": ["true"],
        "env": ["A=1"],
        "preserve_fds": 0,
        "foreground": False,
        "subreaper": False,
        "fds": ["executable", "socket"],
    },
    "attend": {"pid": 2**31 - 1, "id": "x", "root": "/nowhere", "finish": False},
    "output": {"fd": 1, "data": b"xx"},
    "exit": {"status": 1},
    "reap": {"pid": 1},
    "error": {"error": {"kind": "InitError", "message": "m", "errno": 2}},
}


def damaged(chance: random.Random, kind: str) -> bytes:
    data = bytearray(msgpack.packb({"type": kind, **MESSAGES[kind]}, use_bin_type=True))
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_it_ends_in_order(builds: dict[str, Path], supervisor: Supervisor, seed: int):
    chance = random.Random(seed)
    executable = os.open(busybox(), os.O_RDONLY)
    with Client(builds["asan"] / "ctrun", ["list"], supervisor.path) as client:
        wire, _ = supervisor.serve()
        for _ in range(chance.randint(1, 5)):
            ours, theirs = _kernel.socketpair()
            kind = chance.choice(list(MESSAGES))
            try:
                _kernel.sendmsg(wire.fd, damaged(chance, kind), (executable, theirs) if kind == "spawn" else ())
            except ConnectionError:  # it has ended already
                pass
            os.close(ours)
            os.close(theirs)
        wire.close()
        # an exit status of a message may be any; a sanitizer's complaint is an abort or a text
        code = client.process.wait(20)
        err = client.process.stderr
        assert err is not None
        text = err.read().decode(errors="replace")
    os.close(executable)
    assert code >= 0
    assert "anitizer" not in text
    assert "runtime error" not in text
