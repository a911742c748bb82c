"""Processes of containers: what they are to be, and what they are once they run."""

from __future__ import annotations

import copy
import select
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from ctr_common.errors import ConfigError, UsageError, WrongState
from ctr_common.spec import rlimits as rlimit_names
from ctr_supervisor.api import ends, users
from ctr_supervisor.api.stdio import Console, HasFileno, Stream, close_quietly

if TYPE_CHECKING:
    from ctr_common.spec import types

# Sets that a plain list of capabilities goes into; ambient and inheritable ones would survive a change of the user.
CAPABILITY_SETS = ("bounding", "effective", "permitted")
CHUNK = 65536


class Process:
    """A process for a container: its description until it is started, and the running process from then on.

    Like a `subprocess.Popen` it is for one start. What is None is as in the `process` of the container's configuration,
    as with `ctrun exec`, and where that has nothing, as the specification says (config.md, "Process").

    Args:
        args: program and arguments.
        env: environment, as a mapping or as NAME=value strings; all of it.
        user: uid; "USER[:GROUP]" by number or name, looked up in the container's /etc/passwd and /etc/group; or a map
            like `process.user` of the configuration.
        cwd: working directory in the container, absolute; "/" where nobody says.
        stdin, stdout, stderr: None for that of this process, PIPE, DEVNULL, a fd, an object with `fileno()`; stderr
            also STDOUT.
        terminal: whether it gets a terminal, whose master then is `console`. For an exec None is False.
        console_size: (width, height) of the terminal in characters.
        console_socket: path of a unix socket that gets the master of the terminal, in place of `console`.
        capabilities: names for the sets bounding, effective and permitted, or a map of sets.
        rlimits: limits by name (RLIMIT_NOFILE) or number, as one number or (soft, hard); or a list as in the
            configuration.
        no_new_privileges: whether execve may not give privileges.
        apparmor_profile, selinux_label: of the process.
        oom_score_adj: how gladly the kernel kills it when memory is short, -1000 to 1000.
        extra_files: fds, or objects with one, that become 3, 4, … of the process. In-process only.
        init: whether it is the container's first process, or one more in a container that has one. Always said here,
            and never guessed from the container's status, which may change at any moment.
        ignore_paused: exec into a paused container; the process freezes with it.
        cgroup: for an exec: sub-cgroups to put it in, `path` or `controller[,controller]:path`.
        spec: a whole `process` of the specification in place of the configuration's; what is not None above wins.

    Attributes:
        init: as given.
    """

    def __init__(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Mapping[str, str] | Sequence[str] | None = None,
        user: int | str | types.User | None = None,
        cwd: str | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        terminal: bool | None = None,
        console_size: tuple[int, int] | None = None,
        console_socket: str | None = None,
        capabilities: Sequence[str] | types.Capabilities | None = None,
        rlimits: Mapping[str | int, int | tuple[int, int]] | Sequence[types.Rlimit] | None = None,
        no_new_privileges: bool | None = None,
        apparmor_profile: str | None = None,
        selinux_label: str | None = None,
        oom_score_adj: int | None = None,
        extra_files: Sequence[int | HasFileno] = (),
        init: bool = False,
        ignore_paused: bool = False,
        cgroup: Sequence[str] = (),
        spec: types.Process | None = None,
    ) -> None:
        if isinstance(args, str):
            raise UsageError("args of a process is one string, expected a list of them")
        self.init = init
        self.ignore_paused = ignore_paused
        self.cgroup = tuple(cgroup)
        self.console_socket = console_socket or ""
        self.extra_files = tuple(extra_files)
        self.wanted_streams: tuple[Stream, Stream, Stream] = (stdin, stdout, stderr)
        self._spec = spec
        self._user = user
        self._terminal = terminal
        self._given: dict[str, Any] = {
            "args": None if args is None else list(args),
            "env": None if env is None else environment(env),
            "cwd": cwd,
            "consoleSize": None if console_size is None else {"width": console_size[0], "height": console_size[1]},
            "capabilities": None if capabilities is None else capability_sets(capabilities),
            "rlimits": None if rlimits is None else limits(rlimits),
            "noNewPrivileges": no_new_privileges,
            "apparmorProfile": apparmor_profile,
            "selinuxLabel": selinux_label,
            "oomScoreAdj": oom_score_adj,
        }
        self._lock = threading.Lock()
        self._taken = False
        self._handle: ends.Handle | None = None
        self._console: Console | None = None
        self._files: list[IO[bytes] | None] = [None, None, None]

    def __repr__(self) -> str:
        what = "init" if self.init else "exec"
        state = "not started" if self._handle is None else f"pid {self._handle.pid}"
        return f"<{type(self).__name__} {self._given['args'] or 'as configured'} ({what}), {state}>"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the description

    def described(self, configured: types.Process | None, open_root: Callable[[], int]) -> types.Process:
        """The `process` of the specification that it asks for.

        Args:
            configured: `process` of the container's configuration, if it has one.
            open_root: gives an fd of the container's root, to look up names.

        Raises:
            ConfigError: there are no arguments, or the user is not known.
        """
        base: Any = copy.deepcopy(dict(self._spec if self._spec is not None else configured or {}))
        if not self.init and self._spec is None:
            base.pop("terminal", None)
        base.update({name: value for name, value in self._given.items() if value is not None})
        if self._terminal is not None:
            base["terminal"] = self._terminal
        if not base.get("args"):
            raise ConfigError("process args cannot be empty", json_path=".process.args")
        base.setdefault("cwd", "/")
        base.setdefault("user", {"uid": 0, "gid": 0})
        if isinstance(self._user, str):
            base["user"] = users.parse(self._user, open_root)
        elif isinstance(self._user, int):
            base["user"] = {"uid": self._user, "gid": 0}
        elif self._user is not None:
            base["user"] = dict(self._user)
        described: types.Process = base
        return described

    def claim(self) -> None:
        """Takes it for a start.

        Raises:
            WrongState: it has been started, or is being.
        """
        with self._lock:
            if self._taken:
                raise WrongState("this process has been started; make another one")
            self._taken = True

    def disclaim(self) -> None:
        """The start failed; another one may be tried."""
        with self._lock:
            self._taken = False

    def started(self, handle: ends.Handle, files: list[IO[bytes] | None], console: Console | None) -> None:
        """It runs, or waits in exec.fifo.

        Args:
            handle: owned here from now on, as the others are.
            files: the caller's ends of stdin, stdout, stderr, where they are pipes.
            console: its terminal.
        """
        self._files = files
        self._console = console
        self._handle = handle

    # -- the running process

    @property
    def handle(self) -> ends.Handle:
        """The process itself.

        Raises:
            WrongState: it was not started.
        """
        if self._handle is None:
            raise WrongState("the process was not started")
        return self._handle

    @property
    def pid(self) -> int:
        """Its pid, in the pid namespace of whoever made it: this process, or the supervisor.

        Raises:
            WrongState: it was not started.
        """
        return self.handle.pid

    @property
    def pidfd(self) -> int:
        """Its pidfd, readable once it has ended; it stays owned here.

        Raises:
            WrongState: it was not started.
            ValueError: it was closed.
        """
        return self.handle.fileno()

    @property
    def console(self) -> Console | None:
        """Its terminal, None without one."""
        return self._console

    @property
    def stdin(self) -> IO[bytes] | None:
        """The writing end of its standard input, where that is a PIPE; buffered."""
        return self._files[0]

    @property
    def stdout(self) -> IO[bytes] | None:
        """The reading end of its standard output, where that is a PIPE."""
        return self._files[1]

    @property
    def stderr(self) -> IO[bytes] | None:
        """The reading end of its standard error, where that is a PIPE."""
        return self._files[2]

    def poll(self) -> int | None:
        """The exit status, None as long as the process lives; errors as of `wait`."""
        handle = self.handle
        return handle.status() if ends.wait_until(handle.fileno(), 0) else None

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; any number of times, from any thread.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            Its exit status as a shell shows it: 0 to 255, or 128 + the signal that ended it.

        Raises:
            TimeoutError: it still runs.
            WrongState: it was not started; or somebody else has waited for this child of the program.
        """
        return ends.wait(self.handle, timeout, f"process {self.pid}", init=self.init)

    def signal(self, signal: int | str) -> None:
        """Sends it a signal, through its pidfd: never to a process that has got its number since.

        Args:
            signal: a number, a `signal.Signals`, or a name with or without SIG.

        Raises:
            WrongState: it has ended, or was not started.
            UsageError: there is no such signal.
        """
        ends.send_signal(self.handle, signal)

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Writes its input, reads all its output, and waits for its end, as `subprocess.Popen.communicate` does.

        Args:
            input: for its standard input, which must be a PIPE then.
            timeout: seconds for all of it.

        Returns:
            What it wrote to stdout and stderr; None for one that is no PIPE.

        Raises:
            TimeoutError: it took longer; what it wrote until then is lost.
            UsageError: there is input, and nowhere to write it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if input and self.stdin is None:
            raise UsageError("the standard input of the process is not a PIPE")
        with selectors.DefaultSelector() as selector:
            left = memoryview(input or b"")
            if self.stdin is not None and left:
                self.stdin.flush()
                selector.register(self.stdin, selectors.EVENT_WRITE)
            else:
                close_quietly(self.stdin)
            output: dict[IO[bytes], bytearray] = {}
            for file in (self.stdout, self.stderr):
                if file is not None and not file.closed:
                    output[file] = bytearray()
                    selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                rest = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = selector.select(rest)
                if not ready and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"process {self.pid} has not closed its output after {timeout:g} seconds")
                for key, _ in ready:
                    left = _transfer(key.fileobj, left, output, selector)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        found = [bytes(output[file]) if file is not None and file in output else None for file in self._files[1:]]
        return found[0], found[1]

    def close(self) -> None:
        """Closes streams, terminal and pidfd. The process goes on; when it has ended it is reaped some time."""
        for file in self._files:
            close_quietly(file)
        if self._console is not None:
            self._console.close()
        if self._handle is not None:
            self._handle.close()


def _transfer(
    file: Any, left: memoryview, output: dict[IO[bytes], bytearray], selector: selectors.BaseSelector
) -> memoryview:
    """Moves what can be moved without waiting; returns what is left of the input."""
    if file in output:
        data = file.read1(CHUNK)
        output[file] += data
        if not data:
            selector.unregister(file)
            file.close()
        return left
    try:
        # So much has room in a pipe that says that it has some (pipe(7)).
        left = left[file.raw.write(left[: select.PIPE_BUF]) or 0 :]
    except BrokenPipeError:
        left = left[:0]
    if not left:
        selector.unregister(file)
        close_quietly(file)
    return left


def environment(env: Mapping[str, str] | Sequence[str]) -> list[str]:
    """An environment as NAME=value strings."""
    return [f"{name}={value}" for name, value in env.items()] if isinstance(env, Mapping) else list(env)


def capability_sets(capabilities: Sequence[str] | types.Capabilities) -> dict[str, list[str]]:
    """Capabilities by set; a plain list goes into bounding, effective and permitted."""
    if isinstance(capabilities, Mapping):
        sets: Mapping[str, Any] = capabilities
        return {name: list(names) for name, names in sets.items()}
    return {name: list(capabilities) for name in CAPABILITY_SETS}


def limits(
    given: Mapping[str | int, int | tuple[int, int]] | Sequence[types.Rlimit],
) -> list[types.Rlimit]:
    """Limits as the configuration has them.

    Raises:
        UsageError: a number is none of a limit.
    """
    if not isinstance(given, Mapping):
        return [*given]
    names = {number: name for name, number in rlimit_names.NUMBERS.items()}
    found: list[types.Rlimit] = []
    for key, value in given.items():
        name = names.get(key, "") if isinstance(key, int) else key
        if not name:
            raise UsageError(f"{key} is not the number of a resource limit")
        soft, hard = (value, value) if isinstance(value, int) else value
        found.append({"type": name, "soft": soft, "hard": hard})
    return found
