"""What the engine needs around it when it runs in the caller's program: log, errors, parent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ctr_common.errors import CtrError
from ctr_supervisor.api.making import ProgramParent
from ctr_supervisor.engine.runtime import Runtime

logger = logging.getLogger("ctr_supervisor")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@contextmanager
def errors_of_the_tree() -> Iterator[None]:
    """Makes a CtrError of what the system says."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise CtrError.from_os_error(error) from error


def runtime_for(
    root: str, parent: ProgramParent | None = None, *, systemd_cgroup: bool = False, criu: str = ""
) -> Runtime:
    """The engine's surroundings; its log lines go to the logger `ctr_supervisor`."""
    return Runtime(
        root,
        systemd_cgroup=systemd_cgroup,
        criu=criu,
        parent=parent or ProgramParent((0, 1, 2)),
        debug=logger.isEnabledFor(logging.DEBUG),
        log=lambda level, line: logger.log(LEVELS.get(level, logging.INFO), "%s", line),
    )
