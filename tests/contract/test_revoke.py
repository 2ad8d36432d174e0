"""revoke, and what every other script makes of a message that is revoked."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.commands.auditing import mend
from taskq.broker.commands.holding import fetch, sync
from taskq.broker.commands.keeping import reap
from taskq.broker.commands.leasing import close, renew
from taskq.broker.commands.outcomes import words
from taskq.broker.commands.steering import mark, revoke
from taskq.broker.patience import persistent
from taskq.broker.protocol import drive
from taskq.message import codec
from taskq.message.envelope import decode
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from taskq.steering.revoking import Which, revoke_all
from tests.contract.world import (
    LEASE,
    MINUTE,
    SET,
    T0,
    Scores,
    State,
    World,
    message,
    messages,
    raw_id,
    serving,
    without,
)

A, B, C = map(raw_id, range(1, 4))
RESULT = "result:" + A.decode()


def waiting(key: str, *ids: bytes) -> State:
    """A message A that waits in ``key``, with the others."""
    ids = ids or (A,)
    family = key.partition(":")[0]
    place = Scores({id_: T0 + 60_000.0 + i for i, id_ in enumerate(ids)}) if family != "queue" else list(ids)
    if family in ("suspects", "gated"):
        place = list(ids)
    counters = {b"q|accepted": b"%d" % len(ids)}
    counters |= {b"q|scheduled": b"1"} if family == "schedule" else {}
    counters |= {b"q|gated": b"1"} if family == "gated" else {}
    return {"messages": messages(*ids), key: place, "counters": counters}


def running(*ids: bytes, why: bytes = b"a mistake", mark: str = "") -> State:
    """Messages held by an incarnation, of which A is revoked."""
    held = {id_: f"{mark}{T0} q".encode() for id_ in ids or (A,)}
    return serving("inc") | {
        "messages": messages(*held),
        "processing:inc": held,
        "revoked": {A: why},
        "crashes": {A: b"1"},
        "counters": {b"q|accepted": b"%d" % len(held)},
        "pulse": b"%d" % T0,
    }


@pytest.mark.parametrize("key", ["schedule", "queue:q", "ranked:q", "suspects:q"])
def test_what_waits_ends_at_once(world: World, key: str) -> None:
    world.seed(waiting(key), {"crashes": {A: b"1"}, "waiters": {A: b"in"}})

    assert world.run(revoke(world.keys, A, "a mistake")) == "revoked"

    state = world.state()
    assert state.pop("inbox:in") == [b"\x10" + A + b"Xrevoked\na mistake"]
    assert state == {
        RESULT: b"Xrevoked\na mistake",
        "counters": {b"q|accepted": b"1", b"q|discarded": b"1"} | ({b"q|scheduled": b"0"} if key == "schedule" else {}),
    }
    assert world.balances() == {"q": 0}
    assert world.run(revoke(world.keys, A, "")) == "unknown"


def test_what_waits_at_a_gate_ends_at_once(world: World) -> None:
    world.seed(
        waiting("gated:q|t#1"),
        {"limits": {b"t": b"s 0 1 1"}, "tasks": {b"t": b"q"}, "slots": {b"t#1": b"1"}, "gates": {b"t#1": b" q "}},
    )

    assert world.run(revoke(world.keys, A, "")) == "revoked"

    state = world.state()
    assert state[RESULT] == b"Xrevoked"
    assert not {"messages", "gates", "gated:q|t#1"} & set(state)
    assert world.balances() == {"q": 0}


def test_deep_in_a_long_queue_it_is_marked_told_to_those_who_wait_and_ends_when_its_turn_comes(world: World) -> None:
    others = [raw_id(i) for i in range(100, 1101)]
    world.seed(serving("inc"), waiting("queue:q", A, *others), {"ready:set": Scores({b"q": 1.0})})

    assert world.run(revoke(world.keys, A, "a mistake")) == "revoked"

    assert world.state()["revoked"] == {A: b"a mistake"}
    assert world.state()[RESULT] == b"Xrevoked\na mistake"
    assert world.balances() == {"q": 0}
    batch = world.run(fetch(world.keys, "inc", 1, (), want=2, set_id="set"))
    assert batch.messages[::2] == others[:1]
    assert not {"revoked"} & set(world.state())
    assert A not in world.state()["messages"]
    assert world.state()["counters"][b"q|discarded"] == b"1"
    assert world.balances() == {"q": 0}


def test_in_a_queue_of_which_something_is_special_too_it_ends_when_its_turn_comes(world: World) -> None:
    world.seed(
        serving("inc"),
        waiting("queue:q", A, B),
        {"marks": {b"q": b"l"}, "revoked": {A: b"a mistake"}, RESULT: b"Xrevoked\na mistake"},
        {"ready:set": Scores({b"q": 1.0})},
    )

    batch = world.run(fetch(world.keys, "inc", 1, (), want=2, set_id="set"))

    assert batch.messages[::2] == [B]
    assert (world.state()["messages"].keys(), "revoked" in world.state()) == ({B}, False)
    assert world.state()["counters"][b"q|discarded"] == b"1"
    assert world.balances() == {"q": 0}


def test_a_dead_letter_is_left_alone_and_so_is_what_nobody_knows(world: World) -> None:
    before = world.seed({"messages": messages(A), "dead:q": Scores({A: 1.0}), "reasons": {A: b"failed\n"}})

    assert world.run(revoke(world.keys, A, "")) == "dead"
    assert world.run(revoke(world.keys, B, "")) == "unknown"

    assert world.state() == before


def test_what_runs_is_marked_and_its_parent_told(world: World) -> None:
    before = world.seed(without(running(A, B), "revoked"))

    assert world.run(revoke(world.keys, A, "a mistake")) == "running"

    assert world.state() == before | {"revoked": {A: b"a mistake"}, "control:inc": [A]}
    assert 0 < world.ttl("control:inc") <= 60_000


def test_a_renewal_tells_of_what_is_revoked_and_held(world: World) -> None:
    world.seed(running(A, B), {"revoked": {C: b""}})

    renewal = world.run(renew(world.keys, LEASE, [SET], ["inc", "gone"]))

    assert (renewal.revoked, renewal.lost) == ([("inc", A)], {"gone"})


OUTCOMES: dict[str, tuple[Outcome, bytes]] = {
    "revoked": (Ended(A, "done", b"Xrevoked"), b"done"),
    "failed": (Ended(A, "failed", b"F"), b"done"),
    "dead": (Dead(A, "failed", b"", b"F"), b"done"),
    "retried": (Again(A, message(A, body=b"again"), 9.0, "retried"), b"done"),
    "retried at once": (Again(A, message(A, body=b"again"), 0.0, "retried"), b"done"),
    "limited": (SlowDown(A, 9.0), b"done"),
    "expired": (Ended(A, "discarded", b"Xexpired"), b"discarded"),
    "unknown task": (Again(A, message(A), 9.0, "deferred"), b"discarded"),
    "not begun": (Returned(A), b"discarded"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_however_a_revoked_delivery_ends_it_is_the_last(world: World, outcome: str) -> None:
    before = world.seed(running(A, B), {"waiters": {A: b"in"}})
    settled, counter = OUTCOMES[outcome]

    world.run(fetch(world.keys, "inc", 1, words([settled], MINUTE)))

    state = world.state()
    assert state.pop("inbox:in") == [b"\x10" + A + b"Xrevoked\na mistake"]
    assert state == without(before, "revoked", "crashes", "waiters") | {
        RESULT: b"Xrevoked\na mistake",
        "calls": {b"inc": b"1"},
        "messages": messages(B),
        "processing:inc": {B: b"%d q" % T0},
        "counters": {b"q|accepted": b"2", b"q|" + counter: b"1"},
    }
    assert world.balances() == {"q": 0}


@pytest.mark.parametrize("settled", [(A, b"Svalue"), Ended(A, "done", b"Svalue")])
def test_a_value_counts_and_takes_the_mark_away(world: World, settled: Outcome) -> None:
    world.seed(running())

    world.run(fetch(world.keys, "inc", 1, words([settled], MINUTE)))

    state = world.state()
    assert state[RESULT] == b"Svalue"
    assert state["counters"] == {b"q|accepted": b"1", b"q|done": b"1"}
    assert not {"revoked", "messages", "crashes", "processing:inc"} & set(state)


@pytest.mark.parametrize("mark", ["", "!"])
@pytest.mark.parametrize("how", ["died", "stopped", "not begun", "reaped"])
def test_what_a_lost_incarnation_held_ends_if_it_is_revoked(world: World, how: str, mark: str) -> None:
    world.seed(running(A, B, mark=mark))
    if how == "reaped":
        world.at(T0 + 2 * LEASE)
        world.seed({"pulse": b"%d" % (T0 + 2 * LEASE)})
        moves = world.run(reap(world.keys, 10)).moves["inc"]
    else:
        ran = [] if how == "not begun" else [A]
        moves = world.run(close(world.keys, "inc", died=how == "died", alone=True, running=ran))

    assert {move.id: move.place for move in moves}[A] == "revoked"
    state = world.state()
    assert state[RESULT] == b"Xrevoked\na mistake"
    assert state["messages"] == messages(B)
    assert state["counters"][b"q|discarded" if how == "not begun" else b"q|done"] == b"1"
    assert b"q|crashes" not in state["counters"]
    assert not {"revoked", "crashes", "processing:inc"} & set(state)
    assert world.balances() == {"q": 0}


def test_what_an_incarnation_does_not_know_it_holds_ends_if_it_is_revoked(world: World) -> None:
    world.seed(running(A, B))

    world.run(sync(world.keys, "inc", 5, 4, [B]))

    state = world.state()
    assert state[RESULT] == b"Xrevoked\na mistake"
    assert state["messages"] == messages(B)
    assert "revoked" not in state
    assert world.balances() == {"q": 0}


def test_slots_of_a_revoked_message_are_free_again(world: World) -> None:
    world.seed(running(), {"limits": {b"t": b"s 0 1 1"}, "slots": {b"t#1": b"1"}})
    world.seed({"processing:inc": {A: b"%d q\nt#1" % T0}})

    world.run(fetch(world.keys, "inc", 1, words([Ended(A, "done", b"Xrevoked")], MINUTE)))

    assert "slots" not in world.state()


def test_a_mark_whose_message_is_gone_goes_when_its_place_is_cleared(world: World) -> None:
    world.seed({"suspects:q": [A], "revoked": {A: b""}, "counters": {b"q|accepted": b"1"}})

    assert world.run(mend(world.keys, [(A, "suspects:q")])) == ["dangling"]

    assert world.state() == {"counters": {b"q|accepted": b"1", b"q|dangling": b"1"}}


# -- revoking many ------------------------------------------------------------------------------------------


def test_what_is_marked_is_begun_no_more_and_ends_when_its_turn_comes(world: World) -> None:
    world.seed(serving("inc"), waiting("queue:q", A, B, C), {"ready:set": Scores({b"q": 1.0})})
    world.seed({"reasons": {B: b"failed\n"}})

    assert world.run(mark(world.keys, [A, B, raw_id(9)], "a mistake")) == [A]
    assert world.state()["revoked"] == {A: b"a mistake"}
    assert world.run(mark(world.keys, [A, B, raw_id(9)], "a mistake")) == [A]

    batch = world.run(fetch(world.keys, "inc", 1, (), want=3, set_id="set", caps=" q=3 "))
    assert batch.messages[::2] == [B, C]
    assert world.state()["counters"][b"q|discarded"] == b"1"
    assert world.state()[RESULT] == b"Xrevoked\na mistake"


class Between:
    """A way to the server on which a child that is free asks for more before each message that is revoked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls = 0
        self.taken: list[bytes] = []

    def execute(self, command: Command[Any]) -> Any:
        if command.script is not None and command.script.name == "revoke":
            self.calls += 1
            ask = fetch(self.world.keys, "inc", self.calls, (), want=1, set_id="set", caps=" q=1 ")
            self.taken += self.world.run(ask).messages[::2]
        return self.world.run(command)


@pytest.mark.parametrize("which", [Which(queue="q"), Which(task="t"), Which(headers={"tenant": 7})])
def test_of_what_is_revoked_together_nothing_is_begun_meanwhile(world: World, which: Which) -> None:
    ids = [raw_id(n) for n in range(100, 350)]
    headers = {"user": codec.pack({"tenant": 7})}
    stored = {id_: decode(message(id_, accepted=T0 + n)).with_headers(headers) for n, id_ in enumerate(ids)}
    world.seed(serving("inc"), waiting("queue:q", *ids), {"ready:set": Scores({b"q": 1.0})})
    world.seed({"messages": stored})
    between: Any = Between(world)

    assert drive(persistent(revoke_all(world.keys, which, "a mistake"), "here", 5.0), between) == 250

    assert (between.calls, between.taken) == (250, [])
    assert not {"messages", "revoked", "queue:q"} & set(world.state())
    assert world.state()["counters"][b"q|discarded"] == b"250"
    assert world.balances() == {"q": 0}
