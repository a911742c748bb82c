"""One request to CRIU, with the notifications that come before its answer."""

import os

from ctr_common.errors import CriuError, CtrError
from ctr_criu_bridge import rpc
from ctr_criu_bridge.swrk import Swrk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    # Takes a script's name, a pid (0: none) and the fds that came along, which stay the session's. Raises CtrError to
    # stop.
    Notify = Callable[[str, int, Sequence[int]], None]


def ignore_notifications(script: str, pid: int, fds: "Sequence[int]") -> None:
    """Lets CRIU go on."""


def ask(
    swrk: Swrk,
    request: "dict[str, Any]",
    notify: "Notify" = ignore_notifications,
    on_tick: "Callable[[], None] | None" = None,
) -> "dict[str, Any]":
    """Sends the request and serves CRIU until it answers.

    Args:
        notify: is told of each of CRIU's notifications.
        on_tick: called now and then meanwhile.

    Returns:
        The response, a successful one.

    Raises:
        CriuError: CRIU failed, or is gone.
        CtrError: what `notify` raised; CRIU has undone its work by then.
    """
    swrk.send(request)
    refused: CtrError | None = None
    while True:
        response, fds = swrk.receive(on_tick)
        try:
            if response["type"] != rpc.REQUEST_TYPES["NOTIFY"]:
                break
            if refused is None:
                told = response.get("notify", {})
                try:
                    notify(told.get("script", ""), told.get("pid", 0), fds)
                except CtrError as error:
                    refused = error
        finally:
            for fd in fds:
                os.close(fd)
        if not response["success"]:
            # CRIU tells in the shape of a notification, too, that it failed (criu/cr-service.c).
            break
        swrk.send(rpc.request("NOTIFY", notify_success=refused is None))
    if refused is not None:
        raise refused
    if not response["success"]:
        raise failure(request, response)
    return response


def failure(request: "dict[str, Any]", response: "dict[str, Any]") -> CriuError:
    """What CRIU's refusal says."""
    from ctr_criu_bridge import log_errors

    name = rpc.REQUEST_NAMES.get(request["type"], str(request["type"]))
    text = f"criu failed: type {name} errno {response.get('cr_errno', 0)}"
    lines = response.get("cr_errmsg", "").splitlines()
    told = [log_errors.message(line) for line in lines if not log_errors.is_harmless(line)]
    if told and told[0].strip():
        text += f": {told[0].strip()}"
    return CriuError(text)
