"""A key of the wrong type, for as long as an operator's hand is on it, costs no message, no slot and no ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from taskq.broker.commands import announcing, auditing, holding, keeping, leasing, producing, steering, ticking
from taskq.broker.commands.outcomes import words
from taskq.broker.queue_set import QueueSet
from taskq.errors import BrokerRefused
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from tests.contract.fleet import more, sent
from tests.contract.test_derived import (
    DEAD,
    KEYED,
    KEYED_2,
    LATER,
    OWN,
    RUNNING,
    SUSPECT,
    UNIQUE,
    everything,
)
from tests.contract.world import LEASE, MINUTE, World, message, raw_id
from tests.model.audit import SCRIPT, Snapshot, violations

#: Puts every key back as it was dumped.
RESET = b"""
for _, key in ipairs(redis.call('KEYS', (string.gsub(KEYS[1], '{', '[{]')) .. '*')) do redis.call('DEL', key) end
for i = 1, #ARGV, 3 do redis.call('RESTORE', KEYS[1] .. ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
"""
NEW = raw_id(777)
#: Keys that are not there yet.
ABSENT = [
    "revoked", "waiters", "shut", "control:inc", "fair:q", "dead:own", "suspects:own", "queue:z", "entry:new",
    "declared", "revisions",
]  # fmt: skip


def fetch(*outcomes: Outcome, want: int = 0, inc: str = "inc", mode: str = "") -> Callable[[World], Any]:
    groups = words(outcomes, MINUTE)
    return lambda w: holding.fetch(
        w.keys, inc, 9000, groups, want=want, set_id="set", mode=mode, caps=" p=9 q=9 own=9 "
    )


def enqueue(*message: Any) -> Callable[[World], Any]:
    return lambda w: producing.enqueue(w.keys, b"another", 1, [sent(NEW, *message)])  # type: ignore[list-item]


def retry(value: bytes, delay: float) -> Again:
    return Again(OWN, value, delay, "retried")


OWN_VALUE = message(OWN, "own", "own", more=more(limited=True))
#: What is called; after how many ms.
CALLS: dict[str, tuple[float, Callable[[World], Any]]] = {
    "enqueue": (0, enqueue(b"", "p", "p")),
    "enqueue into a new queue": (0, enqueue(b"", "z", "z")),
    "enqueue with a priority": (0, enqueue(more(priority=3), "t")),
    "enqueue with a delay": (0, enqueue(b"", "t", "q", b"d1")),
    "enqueue unique work": (0, enqueue(more(lock="d0:t|new"), "t")),
    "take": (0, fetch(want=20)),
    "take a suspect": (0, fetch(want=1, mode="solo", inc="other")),
    "settle values": (0, fetch((RUNNING, b"Sx"), (OWN, b""))),
    "settle an end": (0, fetch(Ended(OWN, "failed", b"F"))),
    "settle a dead letter": (0, fetch(Dead(OWN, "failed", b"", b"F"))),
    "settle a retry": (0, fetch(retry(OWN_VALUE, 5.0))),
    "settle a retry at once": (0, fetch(retry(OWN_VALUE, 0.0))),
    "settle a retry in another queue": (0, fetch(Again(OWN, message(OWN, "p", "own"), 5.0, "retried", "p"))),
    "settle a retry in another queue at once": (0, fetch(Again(OWN, message(OWN, "p", "own"), 0.0, "retried", "p"))),
    "return": (0, fetch(Returned(OWN), Returned(KEYED))),
    "shut a gate": (0, fetch(SlowDown(OWN, 5.0))),
    "sync": (0, lambda w: holding.sync(w.keys, "inc", 9000, 8999, [])),
    "close": (0, lambda w: leasing.close(w.keys, "inc", died=True, alone=False, running=[OWN])),
    "reap": (20_000, lambda w: keeping.reap(w.keys, 10)),
    "renew": (0, lambda w: leasing.renew(w.keys, LEASE, [QueueSet("set", ("own", "p", "q"))], ["inc"])),
    "register": (0, lambda w: holding.register(w.keys, "third", LEASE, b"", QueueSet("more", ("q", "own", "p")))),
    "promote": (70_000, lambda w: keeping.promote(w.keys, "me", 100, MINUTE)),
    "pause a queue": (0, lambda w: steering.pause(w.keys, "p", 5, "", "")),
    "pause a task": (0, lambda w: steering.pause(w.keys, "t", 5, "", "")),
    "resume": (0, lambda w: steering.resume(w.keys, "idle")),
    "limit": (0, lambda w: steering.limit(w.keys, "keyed", "k 0 1 2")),
    "publish_tasks": (
        0,
        lambda w: announcing.publish_tasks(w.keys, [("new", "q", "s 0 1 1"), ("keyed", "q", "k 0 1 3")]),
    ),
    "revoke what runs": (0, lambda w: steering.revoke(w.keys, OWN, "")),
    "revoke in a line": (0, lambda w: steering.revoke(w.keys, KEYED_2, "")),
    "revoke what is scheduled": (0, lambda w: steering.revoke(w.keys, LATER, "")),
    "revoke unique work": (0, lambda w: steering.revoke(w.keys, UNIQUE, "")),
    "revoke a suspect": (0, lambda w: steering.revoke(w.keys, SUSPECT, "")),
    "replay": (0, lambda w: steering.replay(w.keys, "p", DEAD, b"")),
    "replay into another queue": (0, lambda w: steering.replay(w.keys, "p", DEAD, message(DEAD, "own"), "own")),
    "purge": (0, lambda w: steering.purge(w.keys, "p", [DEAD])),
    "clear a queue": (0, lambda w: steering.clear(w.keys, "p", "", 10)),
    "clear a line": (0, lambda w: steering.clear(w.keys, "q", "keyed#1=k", 10)),
    "mend": (0, lambda w: auditing.mend(w.keys, [(OWN, ""), (raw_id(600), "queue:p")])),
    "define an entry": (0, lambda w: ticking.change_entry(w.keys, "define", "new", b"e" * 20, "1")),
    "remove an entry": (0, lambda w: ticking.change_entry(w.keys, "remove", "tick")),
    "declare entries": (0, lambda w: ticking.declare(w.keys, "jobs", "v" * 16, {"new": b"x" * 20}, force=False)),
}
#: What is only word of what waits is passed on again, at the next renewal or by the audit.
WORDS = ("does not say so", "is not announced", "which is open")


def tamper(world: World, what: str, name: str, dumps: list[Any]) -> None:
    """Put all keys as they were, and make a call while one of them is of the wrong type."""
    world.raw("EVAL", RESET, 1, world.keys.prefix, *dumps)
    kept = world.take_away(name)
    world.raw("SET", world.keys[name], "an operator's hand")
    wait, call = CALLS[what]
    now = world.now
    world.at(now + wait)
    with suppress(BrokerRefused):
        world.run(call(world))
    world.at(now)
    if world.raw("TYPE", world.keys[name]) == b"string":
        world.bring_back(name, kept)


@pytest.mark.parametrize("what", CALLS)
def test_a_key_of_the_wrong_type_leaks_nothing(world: World, what: str) -> None:
    everything(world)
    names = world.names()
    dumps = [w for name in names for w in (name, int(max(world.ttl(name), 0)), world.raw("DUMP", world.keys[name]))]
    wrong, sound = {}, set()
    for name in [*names, *ABSENT]:
        tamper(world, what, name, dumps)
        reply = world.raw(b"EVAL", SCRIPT, 1, world.keys.prefix, repr(world.now))
        state = str(sorted(zip(reply[1::5], map(str, reply[5::5]), strict=True)))
        if state in sound:
            continue
        found = [text for text in violations(Snapshot.read(reply)) if not any(word in text for word in WORDS)]
        found += [f"{queue} does not balance: {n}" for queue, n in world.balances().items() if n]
        if found:
            wrong[name] = found
        else:
            sound.add(state)
    assert wrong == {}
