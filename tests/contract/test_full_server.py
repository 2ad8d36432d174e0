"""A server over its maxmemory: nothing new is accepted, all else goes on until it is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from taskq.broker import onward
from taskq.broker.call import Command
from taskq.broker.commands import (
    announcing,
    auditing,
    awaiting,
    fleet,
    holding,
    keeping,
    leasing,
    looking,
    producing,
    several,
    steering,
    ticking,
)
from taskq.broker.commands.outcomes import words
from taskq.broker.keys import Keys
from taskq.broker.queue_set import QueueSet
from taskq.broker.scripts import all_scripts
from taskq.broker.ticks import DueTick, Step
from taskq.broker.topology import claim
from taskq.errors import BrokerFull
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.message.outcome import Again, Dead, Ended, Passed, Returned
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

A, B, C, D, E, F = map(raw_id, range(1, 7))


@contextmanager
def full(world: World) -> Iterator[None]:
    """Let the server be over its maxmemory."""
    world.raw("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        world.raw("CONFIG", "SET", "maxmemory", 0)


def busy() -> State:
    """An app in which every script has something to do."""
    return serving("inc", "late") | {
        "leases": Scores({b"inc": T0 + 9000.0, b"late": T0 - 1000.0}),
        "pulse": b"%d" % (T0 - 1000),
        "messages": messages(A, B, C, D, E, F),
        "processing:inc": {A: b"1 q"},
        "processing:late": {B: b"1 q"},
        "queue:q": [C],
        "ready:set": Scores({b"q": 1.0}),
        "schedule": Scores({D: 1.0}),
        "dead:q": Scores({E: 1.0, F: 2.0}),
        "reasons": {E: b"failed\n", F: b"failed\n"},
        "onward": {F: b"elsewhere\n" + message(F)},
        "waiters": {A: b"in"},
        "counters": {b"q|accepted": b"6", b"q|scheduled": b"1"},
        "settings": {b"dead_ttl": b"1000"},
        "periodic": {b"due": b"0123456789abcdef...", b"paused": b"0123456789abcdef..."},
        "entry:due": {b"tick": b"1"},
        "entry:paused": {b"paused": b"by me"},
        "ticks": Scores({b"due": 1.0}),
        "declared": {b"jobs": b" due "},
        "entry:gone": {b"origin": b"code"},
        "fleet": {b"there": b"how it is"},
        "fleet-ends": Scores({b"there": T0 + float(MINUTE)}),
    }


def sent(id_: bytes, options: bytes) -> tuple[bytes, bytes, bytes]:
    return id_, encode_head("t", "q") + encode_envelope(id_, {}, b""), options


@pytest.mark.parametrize("options", [b"", b"d60000", b"cw", b"x60000"])
def test_enqueue_is_refused_with_a_clear_error_and_changes_nothing(world: World, options: bytes) -> None:
    world.seed(busy())
    before = world.dump()

    with full(world), pytest.raises(BrokerFull, match="maxmemory"):
        world.run(producing.enqueue(world.keys, b"p", 1, [sent(raw_id(77), options), sent(raw_id(78), b"")]))

    assert world.dump() == before


def test_a_refused_send_may_be_repeated_under_its_number_when_there_is_room(world: World) -> None:
    command = producing.enqueue(world.keys, b"p", 1, [sent(A, b"")])
    with full(world), pytest.raises(BrokerFull):
        world.run(command)

    assert world.run(command) == b"+"
    assert world.balances() == {"q": 0}


def settle(world: World, *outcomes: object, want: int = 0) -> Command[holding.Batch]:
    return holding.fetch(world.keys, "inc", 1, words(outcomes, MINUTE), want=want, set_id="set")  # type: ignore[arg-type]


def drop(world: World) -> Command[bytes]:
    """Take a tick for which nothing is to be sent."""
    due = DueTick("due", b"0123456789abcdef...", 1, b"1")
    return ticking.take_ticks(world.keys, [Step(due, None, None, (T0, T0), dropped=True)])


#: Keys whose values are times of the running clock, which differ by milliseconds.
TIMED = {
    *("dead:q", "leases", "openings", "paused", "published", "pulse", "keeper", "processing:inc"),
    *("ready:set", "schedule", "set-leases", "solo:set", "ticks", "fleet-ends", "minute:1"),
}


def take_any(world: World) -> Command[tuple[int, holding.Batch]]:
    """Take from another partition, where nothing is, or from this one."""
    return several.fetch_any(
        [(Keys(world.keys.app, 1), 1), (world.keys, 1)], "inc",
        want=10, queues=QueueSet("set", ("q",)), caps="",
        wait=0.01, bells=[world.keys["bell:set"]], heard=lambda _: None,
    )  # fmt: skip


CALLS: dict[str, tuple[str, Callable[[World], Command[object]]]] = {
    "taking": ("fetch", lambda w: settle(w, want=10)),
    "settling a value": ("fetch", lambda w: settle(w, (A, b"Sx"))),
    "settling an end": ("fetch", lambda w: settle(w, Ended(A, "failed", b"F"))),
    "settling a dead letter": ("fetch", lambda w: settle(w, Dead(A, "failed", b"", b"F"))),
    "settling a retry": ("fetch", lambda w: settle(w, Again(A, message(A, body=b"x" * 500), 9.0, "retried"))),
    "returning": ("fetch", lambda w: settle(w, Returned(A))),
    "taking from any": ("fetch_any", take_any),
    "taking a suspect": ("fetch", lambda w: holding.fetch(w.keys, "inc", 1, (), want=1, set_id="set", mode="solo")),
    "agreeing after a lost answer": ("sync", lambda w: holding.sync(w.keys, "inc", 5, 4, [])),
    "renewing": ("renew", lambda w: leasing.renew(w.keys, LEASE, [SET], ["inc"])),
    "registering": ("register", lambda w: holding.register(w.keys, "new", LEASE, b"info", SET)),
    "enlisting": (
        "enlist",
        lambda w: announcing.enlist(w.keys, [QueueSet("set", ("q",), tasks=("u" * 99,))], {"t": "q"}),
    ),
    "adopting": ("adopt", lambda w: keeping.adopt(w.keys, 0, b"x" * 500, ["q", "nobody's"])),
    "passing on": ("fetch", lambda w: settle(w, Passed(A, message(A, body=b"x" * 500), 9.0, again=False))),
    "closing": ("close", lambda w: leasing.close(w.keys, "inc", died=True, alone=True, running=[A])),
    "reaping": ("reap", lambda w: keeping.reap(w.keys, 10)),
    "promoting": ("promote", lambda w: keeping.promote(w.keys, "me", 100, 1000)),
    "waiting for a result": ("await", lambda w: awaiting.await_results(w.keys, "in2", [A, C])),
    "locating": ("locate", lambda w: looking.locate(w.keys, A)),
    "asking why": ("why", lambda w: looking.why(w.keys, C)),
    "replaying": ("replay", lambda w: steering.replay(w.keys, "q", E, b"")),
    "sending on": ("onward", lambda w: onward.send_on(w.keys, "q", E, "there", b"x" * 500)),
    "arriving": ("arrive", lambda w: onward.arrive(w.keys, raw_id(77), message(raw_id(77), "q", body=b"x" * 500))),
    "having arrived": ("arrived", lambda w: onward.arrived(w.keys, E, accepted=True)),
    "claiming": ("claim", lambda w: claim(w.keys, 4, b"")),
    "purging": ("purge", lambda w: steering.purge(w.keys, "q", [E])),
    "clearing a queue": ("clear", lambda w: steering.clear(w.keys, "q", "", 10)),
    "peeking": ("peek", lambda w: looking.peek(w.keys, "q", 0, 10)),
    "asking for ages": ("oldest", lambda w: looking.ages(w.keys, ["q"])),
    "reporting": ("report", lambda w: fleet.report(w.keys, "w", 60.0, b"x" * 500)),
    "ordering": ("order", lambda w: fleet.order(w.keys, "there", "stop")),
    "keeping a minute": ("minute", lambda w: keeping.keep_minute(w.keys)),
    "retiring": ("retire", lambda w: keeping.retire(w.keys, 10, ["q"])),
    "asking for a backlog": ("backlog", lambda w: looking.backlog(w.keys, ["q"])),
    "surveying": ("survey", lambda w: looking.survey(w.keys)),
    "pausing": ("pause", lambda w: steering.pause(w.keys, "q", 60.0, "me", "x" * 500)),
    "publishing": ("publish_tasks", lambda w: announcing.publish_tasks(w.keys, [("t", "q", "o 10.000 1 0")])),
    "limiting": ("limit", lambda w: steering.limit(w.keys, "t", "s 0 1 5")),
    "resuming": ("resume", lambda w: steering.resume(w.keys, "q")),
    "revoking": ("revoke", lambda w: steering.revoke(w.keys, A, "x" * 500)),
    "marking": ("mark", lambda w: steering.mark(w.keys, [A, C], "x" * 500)),
    "auditing": ("audit", lambda w: auditing.audit(w.keys, MINUTE)),
    "tallying": ("tally", lambda w: auditing.tally(w.keys, ["q"])),
    "balancing": ("ledger", lambda w: auditing.ledger(w.keys, {})),
    "restoring": ("restore", lambda w: auditing.restore(w.keys, [("q", True, "set")])),
    "reopening": ("reopen", lambda w: auditing.reopen(w.keys, [b"t#1"])),
    "recounting": ("recount", lambda w: auditing.recount(w.keys, [b"t#1"])),
    "tidying": ("tidy", lambda w: auditing.tidy(w.keys, "crashes", [raw_id(99)])),
    "relocking": ("relock", lambda w: auditing.relock(w.keys, [A])),
    "rousing": ("rouse", lambda w: auditing.rouse(w.keys, ["entry"])),
    "scanning": ("scan", lambda w: auditing.scan_ids(w.keys, b"0", 10)),
    "mending": ("mend", lambda w: auditing.mend(w.keys, [(A, "queue:q"), (raw_id(99), "")])),
    "leaving out a tick": ("tick", drop),
    "declaring": ("declare", lambda w: ticking.declare(w.keys, "jobs", "f" * 16, {"new": b"x" * 99}, force=False)),
    "defining": ("entry", lambda w: ticking.change_entry(w.keys, "define", "new", b"x" * 99, 0)),
    "removing": ("entry", lambda w: ticking.change_entry(w.keys, "remove", "due")),
    "pausing an entry": ("entry", lambda w: ticking.change_entry(w.keys, "pause", "due", b"by me")),
    "resuming an entry": ("entry", lambda w: ticking.change_entry(w.keys, "resume", "paused")),
}


#: A result is what a full server does without; those who wait get it.
WITH_RESULTS = {"settling a value", "settling an end", "settling a dead letter"}


def test_a_tick_that_sends_is_refused_and_changes_nothing(world: World) -> None:
    world.seed(busy())
    before = world.dump()
    due = DueTick("due", b"0123456789abcdef...", 1, b"1")

    with full(world), pytest.raises(BrokerFull, match="maxmemory"):
        world.run(ticking.take_ticks(world.keys, [Step(due, sent(raw_id(77), b""), 1, (T0, T0))]))

    assert world.dump() == before


@pytest.mark.parametrize("what", CALLS)
def test_all_else_goes_on_as_if_there_were_room(world: World, what: str) -> None:
    """The same call on the same state, without and with room, leaves the same keys."""
    _, command = CALLS[what]
    world.seed(busy())
    world.run(command(world))
    roomy = world.state()
    for name in world.names():
        world.raw("DEL", world.keys[name])
    world.at(T0)
    world.seed(busy())

    with full(world):
        world.run(command(world))

    if what in WITH_RESULTS:
        roomy = without(roomy, f"result:{A.decode()}")
        roomy["counters"] |= {b"q|unkept": b"1"}
    state = world.state()
    if what == "arriving":  # its head has the time
        roomy["messages"], state["messages"] = set(roomy["messages"]), set(state["messages"])
    assert set(state) == set(roomy)
    for name in TIMED & set(state) - {"pulse", "keeper"}:
        assert list(state[name]) == list(roomy[name])
    assert without(state, *TIMED & set(state)) == without(roomy, *TIMED & set(roomy))


def test_the_time_is_kept_on_a_full_server_although_nothing_is_due(world: World) -> None:
    world.seed({"schedule": Scores({A: T0 + MINUTE}), "messages": messages(A)})

    with full(world):
        promotion = world.run(keeping.promote(world.keys, "me", 100, 1000))

    assert (promotion.moved, promotion.wait) == (0, 1)
    assert world.state()["keeper"].startswith(b"me ")


def test_every_script_but_enqueue_is_tried_on_a_full_server() -> None:
    assert {script.name for script in all_scripts()} == {name for name, _ in CALLS.values()} | {"enqueue"}


@pytest.mark.parametrize("why", ["full", "scarce"])
def test_results_are_not_kept_where_memory_is_scarce_but_given_to_those_who_wait(world: World, why: str) -> None:
    """Results of a busy fleet would fill the memory that messages need: nothing but time makes them go."""
    ids, outcomes = [A, B, C, D], [(D, b""), (A, b"Sone"), (B, b"Stwo"), Ended(C, "failed", b"Fno")]
    if why == "scarce":
        world.run(announcing.refuse_results(world.keys, 30.0))
        assert 0 < world.ttl("scarce") <= 30_000
    for waiters in ({B: b"in", C: b"in"}, {}):
        world.seed(serving("inc"), {"messages": messages(*ids), "processing:inc": dict.fromkeys(ids, b"1 q")})
        world.seed({"waiters": waiters} if waiters else {})
        world.raw("DEL", world.keys["calls"])
        world.seed({"calls": {b"inc": b"0"}})

        with full(world) if why == "full" else nullcontext():
            assert world.run(settle(world, *outcomes)).fenced == 0

        assert not [name for name in world.names() if name.startswith("result:")]
        assert "messages" not in world.names()
    assert world.state()["inbox:in"] == [b"\x10" + B + b"Stwo", b"\x10" + C + b"Fno"]
    counters = world.state()["counters"]
    assert (counters[b"q|done"], counters[b"q|failed"], counters[b"q|unkept"]) == (b"6", b"2", b"6")


def test_a_full_server_drains(world: World) -> None:
    ids = [raw_id(i) for i in range(300)]
    world.run(holding.register(world.keys, "inc", LEASE, b"", SET))
    world.run(producing.enqueue(world.keys, b"p", 1, [sent(id_, b"") for id_ in ids]))

    drained: list[bytes] = []
    with full(world):
        held: list[bytes] = []
        for number in range(1, 10):
            groups = words([(id_, b"") for id_ in held], MINUTE)
            fetch = holding.fetch(world.keys, "inc", number, groups, want=64, set_id="set")
            drained += held
            held = world.run(fetch).messages[::2]

    assert drained == ids
    assert world.run(looking.survey(world.keys))["q"].counters == {"accepted": 300, "done": 300}
