"""Runs OCI hooks: each with the container's state on stdin, its own argv and environment, and a bounded time.

Source: runtime-spec, config.md, "POSIX-platform Hooks".
"""

import os
import select
import time

from ctr_common import fastjson
from ctr_common.errors import HookError
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ctr_common.spec.types import Hook

# A hook's output is kept for the error message only, and no more of it than this.
OUTPUT_MAX = 64 * 1024


def run(hooks: "Sequence[Hook]", state: "dict[str, Any]", stage: str) -> None:
    """Runs the hooks of one stage in order; the first failure ends it.

    Args:
        hooks: entries of `.hooks.<stage>`.
        state: OCI state, given to each hook on stdin as JSON.
        stage: its name in config.json, for error texts.

    Raises:
        HookError: a hook could not be run, failed, or took longer than its timeout (then it is killed).
    """
    if not hooks:
        return
    data = fastjson.dumps(state).encode()
    for index, hook in enumerate(hooks):
        _run_one(hook, data, stage, index)


def run_all_ignoring_failures(hooks: "Sequence[Hook]", state: "dict[str, Any]", stage: str) -> "list[HookError]":
    """Runs every hook of a stage whose failures must not stop anything (poststop); gives the failures back."""
    failures = []
    data = fastjson.dumps(state).encode()
    for index, hook in enumerate(hooks):
        try:
            _run_one(hook, data, stage, index)
        except HookError as error:
            failures.append(error)
    return failures


def _run_one(hook: "Hook", state: bytes, stage: str, index: int) -> None:
    path = hook["path"]
    place = f".hooks.{stage}[{index}]"
    step = f"error running {stage} hook #{index}"
    timeout = hook.get("timeout")
    deadline = None if timeout is None else time.monotonic() + timeout
    stdin = _kernel.memfd_sealed("hook-state", state)
    try:
        out_read, out_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                pid, pidfd = _spawn(hook, stdin, out_write, stage)
            except OSError as error:
                raise HookError(
                    "fork/exec", step=step, path=path, json_path=place, errno=error.errno or 0, syscall="execve"
                ) from None
            finally:
                os.close(out_write)
            try:
                status, output = _wait(pid, pidfd, out_read, deadline)
            finally:
                os.close(pidfd)
        finally:
            os.close(out_read)
    finally:
        os.close(stdin)
    if status is None:
        raise HookError(
            f"{path} timed out after {timeout} seconds and was killed", step=step, path=path, json_path=place
        )
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        what = f"exit status {code}" if code >= 0 else f"signal {-code}"
        text = output.decode("utf-8", "replace").strip()
        raise HookError(
            f"{path}: {what}, stdout and stderr: {text!r}" if text else f"{path}: {what}",
            step=step,
            path=path,
            json_path=place,
        )


def _spawn(hook: "Hook", stdin: int, output: int, stage: str) -> "tuple[int, int]":
    environment: dict[bytes, bytes] = {}
    for entry in hook.get("env") or ():
        name, _, value = os.fsencode(entry).partition(b"=")
        environment[name] = value
    # A hook without env: nothing of the host's in the container's namespaces, and elsewhere that of whoever calls us,
    # as under runc and crun, since hooks look for programs by PATH.
    if not environment and stage != "createContainer":
        environment = {**os.environb}
    # None of our fds, all of which are close-on-exec, nor the caller's, such as those for --preserve-fds: they are the
    # container's, not a hook's. And without touching a fd of this process, which may have other threads.
    arguments = hook.get("args") or [hook["path"]]
    entries = [name + b"=" + value for name, value in environment.items()]
    return _kernel.spawn(hook["path"], arguments, entries, [(stdin, 0), (output, 1), (output, 2)], True)


def _wait(pid: int, pidfd: int, output: int, deadline: "float | None") -> "tuple[int | None, bytes]":
    """Status (None: killed at the deadline) and what it printed."""
    collected = bytearray()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    while True:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        events = poll.poll(remaining)
        if any(fd == output for fd, _ in events) and not _collect(output, collected):
            # The hook closed its output, or a grandchild holds it no more; only its end counts from here on.
            poll.unregister(output)
        if any(fd == pidfd for fd, _ in events):
            _collect(output, collected)
            return _reap(pid, pidfd), bytes(collected)
        if not events and deadline is not None and time.monotonic() >= deadline:
            _kernel.pidfd_send_signal(pidfd, 9)
            _reap(pid, pidfd)
            return None, bytes(collected)


def _reap(pid: int, pidfd: int) -> int:
    """Wait status of a child that has ended, or ends.

    Raises:
        HookError: somebody else has reaped it, and the kernel (before 6.15) tells nobody its status.
    """
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        # A program that uses the engine may ignore SIGCHLD, or reap whatever is there.
        try:
            status = _kernel.pidfd_info(pidfd)
        except OSError:
            status = None
    if status is None:
        raise HookError("somebody else has waited for the hook, and its exit status is lost")
    return status


def _collect(output: int, collected: bytearray) -> bool:
    """Reads what is there; False at the end of the pipe."""
    while True:
        try:
            data = os.read(output, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        if len(collected) < OUTPUT_MAX:
            collected += data[: OUTPUT_MAX - len(collected)]
