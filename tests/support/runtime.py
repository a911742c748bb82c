"""An OCI runtime under test, or one to compare with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.command import Result, run

ROOT = Path(__file__).parents[2]


def runtime_under_test() -> Path:
    """bin/ctrun, unless the environment names another one in CTR_TEST_RUNTIME."""
    return Path(os.environ.get("CTR_TEST_RUNTIME") or ROOT / "bin/ctrun")


class Runtime:
    """Runs the verbs of an OCI runtime.

    Args:
        path: the executable.
        state_root: its directory of states; None is its default for root.
    """

    def __init__(self, path: Path, state_root: Path | None = None) -> None:
        self.path = path
        self.globals: list[str] = [] if state_root is None else ["--root", str(state_root)]
        self.state_root = state_root or Path("/run", path.name)

    def __call__(
        self,
        *args: str | Path,
        timeout: float = 30,
        stdin: str | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Result:
        """Runs one verb to its end.

        Args:
            args: verb, flags and arguments; global flags stand before the verb, as a user would type them.
            timeout: limit in seconds.
            stdin: standard input; None is /dev/null.
            cwd: working directory.
            env: whole environment; None is the caller's.
            pass_fds: fds to hand on.
        """
        __tracebackhide__ = True
        return run(self.path, *self.globals, *args, timeout=timeout, stdin=stdin, cwd=cwd, env=env, pass_fds=pass_fds)

    def state(self, container: str) -> dict[str, Any]:
        """The OCI state of a container that exists."""
        __tracebackhide__ = True
        state: dict[str, Any] = json.loads(self("state", container).text)
        return state

    def status(self, container: str) -> str:
        """Status of a container; an empty string when there is none of that id."""
        result = self("state", container)
        return "" if result.code else str(json.loads(result.out)["status"])

    def remove(self, container: str) -> None:
        """Deletes the container, whatever its state; does nothing when there is none."""
        if (self.state_root / container).exists():
            self("delete", "--force", container)
