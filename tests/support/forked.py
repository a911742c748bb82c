"""Work in a forked child, where namespaces can be changed and filters loaded without harm to the test run."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns (as JSON has it) when it runs in a forked child.

    Args:
        work: must not return a large object while a seccomp filter is loaded: the child only calls write and
            exit_group after it.

    Raises:
        AssertionError: it raised something, or the child died of a signal; says what.
    """
    status, text = run_child(work)
    assert status == 0, text or f"wait status {status}"
    return json.loads(text)


def run_child(work: Callable[[], Any]) -> tuple[int, str]:
    """Wait status of a forked child that ran `work`, and its result as JSON, or the traceback (status 256)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            text = json.dumps(work())
            code = 0
        except BaseException:
            text = traceback.format_exc()
        os.write(writer, text.encode())
        os._exit(code)
    os.close(writer)
    chunks = []
    while chunk := os.read(reader, 65536):
        chunks.append(chunk)
    os.close(reader)
    return os.waitpid(pid, 0)[1], b"".join(chunks).decode()


def open_fds() -> set[int]:
    """The fds of this process."""
    # one of those listed was the directory itself
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def is_cloexec(fd: int) -> bool:
    """Whether an fd closes on execve."""
    return not os.get_inheritable(fd)
