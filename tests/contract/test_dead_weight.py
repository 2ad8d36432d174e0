"""What is not to run any more, since it has expired or was revoked, holds nothing and spends nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from taskq.broker.commands import awaiting, steering
from taskq.message.outcome import Again
from tests.contract.fleet import Fleet, more, sent
from tests.contract.test_lines import key_of, of_key, settle_down
from tests.contract.world import T0, Scores, World, message, raw_id

A, B, C, D, E = map(raw_id, range(1, 6))
LIMITED = more(limited=True)
SOON = b"x1000"


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world, incarnations=("inc", "other"))


# -- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["s 10000.000000 2 0", "k 10000.000000 2 0", "o 10000.000000 2 0", "s 0.000000 1 2"])
@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("in_line", [True, False])
def test_what_has_expired_spends_no_rate_and_takes_no_slot(
    fleet: Fleet, limit: str, ranked: bool, in_line: bool
) -> None:
    head = more(priority=3 if ranked else 0, limited=True, _1="x")
    fleet.publish("q", limit)
    if in_line:
        fleet.send(D, E, head=head, task="q")
        assert fleet.take(2) == [D, E]
        fleet.send(*(raw_id(100 + i) for i in range(60)), head=head, task="q", options=SOON)
        settle_down(fleet)
        fleet.done(D, E)
        fleet.world.at(T0 + 60_000)
    else:
        fleet.send(*(raw_id(100 + i) for i in range(60)), head=head, task="q", options=SOON)
    fleet.world.at(fleet.world.now + 2000)
    fleet.send(A, B, C, head=head, task="q")
    fleet.promote()

    assert fleet.take(3) == [A, B]

    snap = fleet.look()
    assert snap.counter("q", "discarded") == 60
    assert snap["result:" + raw_id(100).decode()] == b"Xexpired"


def test_whoever_waits_for_what_has_expired_is_told(fleet: Fleet) -> None:
    fleet.send(A, head=LIMITED, options=SOON)
    fleet.world.run(awaiting.await_results(fleet.world.keys, "in", [A]))
    fleet.world.at(T0 + 2000)

    assert fleet.take() == []

    assert fleet.look().row("inbox:in")
    assert "waiters" not in fleet.world.names()


def test_a_suspect_that_has_expired_waits_for_no_gate_and_holds_up_no_other(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 3", "k 0.000000 1 1")
    fleet.send(A, head=more(_2="x"), options=SOON)
    fleet.send(B, head=more(_2="y"))
    assert fleet.take(2) == [A, B]
    fleet.lose("inc", A, B)
    fleet.send(C, head=more(_2="x"))
    assert fleet.take(1, inc="other") == [C]
    fleet.begin("alone")
    fleet.world.at(T0 + 2000)

    assert fleet.take(1, inc="alone", mode="solo") == [B]
    assert fleet.look()["result:" + A.decode()] == b"Xexpired"


def test_what_expires_while_it_runs_runs_on(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 1")
    fleet.send(A, head=LIMITED, options=SOON)
    assert fleet.take() == [A]
    fleet.world.at(T0 + 2000)

    fleet.done(A)

    assert fleet.look().counter("q", "done") == 1


# -- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", ["s0:t|k", "d0:t|k", "d60000:t|k"])
@pytest.mark.parametrize("where", ["queue", "line", "schedule"])
def test_what_has_expired_unrun_holds_no_lock(fleet: Fleet, lock: str, where: str) -> None:
    """The next call is accepted, and done; the old one ends when it comes up, and takes no lock with it."""
    head = more(lock=lock, limited=True)
    if where == "line":
        fleet.pause("t")
        fleet.publish("t")
        fleet.pause("t")
    fleet.send(A, head=head, options=b"x1000 d900" if where == "schedule" else SOON)
    if where == "line":
        assert fleet.take() == []
    fleet.world.at(T0 + 1500)

    assert fleet.send(B, head=head) == b"+"

    fleet.resume("t")
    fleet.promote()
    assert fleet.take(5) == [B]
    assert fleet.look()["result:" + A.decode()] == b"Xexpired"
    fleet.done(B)
    assert "unique" not in fleet.world.names()


@pytest.mark.parametrize("alone", [True, False])
def test_what_runs_keeps_its_lock_though_its_time_to_begin_is_over(fleet: Fleet, alone: bool) -> None:
    head = more(lock="d0:t|k", limited=True)
    fleet.send(A, head=head, options=SOON)
    assert fleet.take() == [A]
    if alone:
        fleet.lose("inc", A)
        assert fleet.take(1, inc="other", mode="solo") == [A]
    fleet.world.at(T0 + 2000)

    assert fleet.send(B, head=head) == b"~" + A.hex().encode() + b"."


def test_a_retry_that_can_run_no_more_holds_no_lock(fleet: Fleet) -> None:
    head = more(lock="d0:t|k", limited=True)
    fleet.send(A, head=head, options=SOON)
    fleet.take()
    value = fleet.look()["messages"][A]
    fleet.fetch(Again(A, value, 60.0, "retried"))
    fleet.world.at(T0 + 2000)

    assert fleet.send(B, head=head) == b"+"


def test_a_dead_letter_is_replayed_though_an_expired_message_has_its_lock(fleet: Fleet) -> None:
    head = more(lock="d0:t|k", limited=True)
    fleet.world.seed(
        {
            "messages": {A: message(A, more=head)},
            "dead:q": Scores({A: 1.0}),
            "reasons": {A: b"failed\n"},
            "counters": {b"q|accepted": b"1"},
        }
    )
    fleet.send(B, head=head, options=SOON)
    fleet.world.at(T0 + 2000)

    assert fleet.world.run(steering.replay(fleet.world.keys, "q", A, b"")) is True


# -- length ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranked", [True, False])
def test_what_has_expired_takes_no_room(fleet: Fleet, ranked: bool) -> None:
    head = more(priority=3) if ranked else b""
    ids = [raw_id(100 + i) for i in range(150)]
    fleet.send(*ids, head=head, options=b"m150 x1000")
    assert fleet.send(A, head=head, options=b"m150") == b"!"
    fleet.world.run(awaiting.await_results(fleet.world.keys, "in", ids[:1]))
    fleet.world.at(T0 + 2000)

    assert fleet.send(A, B, head=head, options=b"m150") == b"++"

    snap = fleet.look()
    assert set(snap.table("messages")) == {A, B}
    assert snap["result:" + ids[0].decode()] == b"Xexpired"
    assert snap.row("inbox:in")
    assert fleet.take(5) == [A, B]


@pytest.mark.parametrize("which", [slice(0, 600), slice(400, 1000)])
def test_what_was_revoked_takes_no_room(fleet: Fleet, which: slice) -> None:
    """Also in a queue too long to be searched for each of them."""
    ids = [raw_id(1000 + i) for i in range(1200)]
    with fleet.unaudited():
        fleet.send_all([sent(id_, options=b"m1200") for id_ in ids])
        for id_ in ids[which]:
            fleet.world.run(steering.revoke(fleet.world.keys, id_, ""))
        left = len(fleet.world.state()["queue:q"])
        assert left > 1100
        assert fleet.send(*(raw_id(i) for i in range(600)), options=b"m1200") == b"+" * 600
        assert fleet.send(raw_id(900), options=b"m1200") == b"!"

    assert len(fleet.look().table("messages")) == 1200


def test_a_full_queue_of_live_messages_is_left_as_it_was(fleet: Fleet) -> None:
    fleet.send(A, B, options=b"m2 x5000")
    before = {name: dump for name, dump in fleet.world.dump().items() if name != "producer:p"}

    assert fleet.send(C, options=b"m2") == b"!"

    assert {name: dump for name, dump in fleet.world.dump().items() if name != "producer:p"} == before


# -- turns -------------------------------------------------------------------------------------------------------


def send_fair(fleet: Fleet, key: int, n: int, options: bytes = b"", first: int = 0) -> list[bytes]:
    ids = of_key(key, first + n)[first:]
    fleet.send(*ids, head=more(fair=str(key)), options=options)
    return ids


def order_of(fleet: Fleet, n: int) -> list[bytes]:
    order = []
    for _ in range(n):
        got = fleet.take(1)
        order += got
        fleet.done(*got)
    return order


@pytest.mark.parametrize("kept", [0, 1, 30])
@pytest.mark.parametrize("backwards", [True, False])
def test_revoked_messages_keep_no_turns(fleet: Fleet, kept: int, backwards: bool) -> None:
    """Neither from what their tenant sends later nor from what it has behind them."""
    with fleet.unaudited():
        mine = send_fair(fleet, 1, 90 + kept)
        revoked = mine[:90]
        for id_ in reversed(revoked) if backwards else revoked:
            assert fleet.revoke(id_) == "revoked"
        later = send_fair(fleet, 1, 30 - kept, first=200)
        send_fair(fleet, 2, 100)

        order = order_of(fleet, 40)

    share = Counter(map(key_of, order))
    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2, share
    assert [id_ for id_ in order if key_of(id_) == b"k0001"] == [*mine[90:], *later][: share[b"k0001"]]


def test_a_tenant_whose_turns_were_given_back_has_no_more_than_its_share(fleet: Fleet) -> None:
    with fleet.unaudited():
        mine = send_fair(fleet, 1, 60)
        send_fair(fleet, 2, 60)
        for id_ in mine[20:40]:
            fleet.revoke(id_)

        order = order_of(fleet, 60)

    share = Counter(map(key_of, order))
    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2, share


@pytest.mark.parametrize("n", [1, 7])
def test_expired_messages_spend_no_turns(fleet: Fleet, n: int) -> None:
    with fleet.unaudited():
        send_fair(fleet, 1, 70, SOON)
        mine = send_fair(fleet, 1, 30, first=100)
        send_fair(fleet, 2, 100)
        fleet.world.at(T0 + 2000)

        order: list[bytes] = []
        while len(order) < 42:
            got = fleet.take(n)
            order += got
            fleet.done(*got)

    share = Counter(map(key_of, order))
    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2 + n, share
    assert [id_ for id_ in order if key_of(id_) == b"k0001"] == mine[: share[b"k0001"]]


def test_a_message_revoked_in_a_line_gives_its_turn_back(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 1")
    with fleet.unaudited():
        head = [more(fair=str(key), limited=True) for key in (1, 2)]
        mine, others = of_key(1, 40), of_key(2, 40)
        fleet.send(*mine, head=head[0])
        (running,) = fleet.take(1)
        settle_down(fleet)
        for id_ in mine[1:30]:
            assert fleet.revoke(id_) == "revoked"
        fleet.send(*others, head=head[1])
        order = []
        for _ in range(10):
            fleet.done(running)
            (running,) = fleet.take(1)
            order.append(running)

    share = Counter(map(key_of, order))
    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2, share
