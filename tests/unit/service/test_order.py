"""The order of requests about one container."""

from __future__ import annotations

from ctr_common.wire import Packet
from ctr_supervisor.service.order import Order


def request(kind: str, container_id: str = "c") -> Packet:
    return Packet({"type": kind, "id": container_id}, {})


def test_one_after_the_other_in_their_order() -> None:
    order, owner = Order(), object()
    first, second, third = request("create"), request("start"), request("delete")
    assert [order.must_wait(owner, one) for one in (first, second, third)] == [False, True, True]
    assert order.of(owner) == [second, third]
    assert order.done(owner, first) is second
    assert order.done(owner, second) is third
    assert order.done(owner, third) is None
    assert not order.must_wait(owner, request("create"))


def test_other_containers_and_other_connections_do_not_wait() -> None:
    order, owner, other = Order(), object(), object()
    assert not order.must_wait(owner, request("create"))
    assert not order.must_wait(owner, request("create", "other"))
    assert not order.must_wait(other, request("create"))


def test_a_kill_overtakes_and_does_not_end_anybodys_turn() -> None:
    order, owner = Order(), object()
    first, second, kill = request("start"), request("delete"), request("kill")
    order.must_wait(owner, first)
    order.must_wait(owner, second)
    assert not order.must_wait(owner, kill)
    assert order.done(owner, kill) is None
    assert order.done(owner, first) is second


def test_what_waits_for_a_client_that_is_gone_is_dropped() -> None:
    order, owner = Order(), object()
    first = request("create")
    order.must_wait(owner, first)
    order.must_wait(owner, request("start"))
    order.forget(owner)
    assert order.of(owner) == []
    assert order.done(owner, first) is None
