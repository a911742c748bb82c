"""The life story of a container's namespaces: everything that the setup worker does, in order.

Each step says which pieces of work it has for a configuration, and carries one piece out. A step without pieces is not
there for that configuration. `ctr-init-setup --dry-run BUNDLE` prints the pieces.
"""

from ctr_common import trace
from ctr_common.errors import CtrError, SetupError
from ctr_init import (
    bind,
    console,
    devices,
    finish,
    hooks,
    identity,
    join,
    masks,
    mounts,
    network,
    pivot,
    resolve,
    rootfs,
    sysctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Piece, Setup

    Steps: TypeAlias = list[tuple["Step", Piece]]


class Step:
    """One kind of work.

    Args:
        name: for step lists and error texts.
        pieces: what there is to do for a plan.
        execute: does one piece.
    """

    __slots__ = ("execute", "name", "pieces")

    def __init__(
        self, name: str, pieces: "Callable[[SetupPlan], list[Piece]]", execute: "Callable[[Setup, Any], None]"
    ) -> None:
        self.name = name
        self.pieces = pieces
        self.execute = execute


STEPS = (
    Step("join namespaces", join.first_pieces, join.join_first),
    Step("set root propagation", rootfs.propagation_pieces, rootfs.set_root_propagation),
    Step("bind root filesystem", rootfs.bind_pieces, rootfs.bind_on_itself),
    Step("open bind source", bind.early_pieces, bind.open_early),
    Step("join other namespaces", join.rest_pieces, join.join_rest),
    Step("bring up loopback", network.pieces, network.bring_up_loopback),
    Step("mount", mounts.pieces, mounts.mount),
    Step("make device", devices.pieces, devices.create),
    Step("link in /dev", devices.link_pieces, devices.link),
    Step("prestart and createRuntime hooks", hooks.runtime_pieces, hooks.ask_engine),
    Step("createContainer hooks", hooks.container_pieces, hooks.run_container_hooks),
    Step("change root", pivot.pieces, pivot.change_root),
    Step("make working directory", finish.directory_pieces, finish.make_working_directory),
    Step("allocate terminal", console.pieces, console.allocate),
    Step("make mounts read-only", mounts.read_only_pieces, mounts.make_read_only),
    Step("make root read-only", rootfs.read_only_pieces, rootfs.make_read_only),
    Step("set host name", identity.hostname_pieces, identity.set_hostname),
    Step("set domain name", identity.domainname_pieces, identity.set_domainname),
    Step("write sysctl", sysctl.pieces, sysctl.write),
    Step("make path read-only", masks.read_only_pieces, masks.make_read_only),
    Step("mask path", masks.mask_pieces, masks.mask),
    Step("report", finish.report_pieces, finish.report),
)


def describe(plan: "SetupPlan") -> "list[dict[str, str]]":
    """The step list of a plan: `step`, `detail` and, where the configuration asks for it, `json_path`."""
    return [
        {"step": step.name, "detail": piece.detail, "json_path": piece.json_path}
        if piece.json_path
        else {"step": step.name, "detail": piece.detail}
        for step, piece in of_plan(plan)
    ]


def of_plan(plan: "SetupPlan") -> "Steps":
    """All that there is to do for a plan, in order; known before there is anything to do it to."""
    return [(step, piece) for step in STEPS for piece in step.pieces(plan)]


def execute(setup: "Setup", todo: "Steps") -> None:
    """Carries out the whole list.

    Args:
        todo: from `of_plan`.

    Raises:
        CtrError: a piece failed; the error names the step and the place in the configuration.
    """
    for step, piece in todo:
        try:
            with trace.span(step.name, piece.detail):
                step.execute(setup, piece.argument)
        except OSError as error:
            made = resolve.making_failed(error)
            failure = SetupError.from_os_error(
                error, step.name, message=f"{piece.detail}: {made}" if made else piece.detail
            )
            failure.json_path = piece.json_path
            raise failure from None
        except CtrError as error:
            error.step = error.step or step.name
            error.json_path = error.json_path or piece.json_path
            raise
