"""Everything of flow control together, in random order.

Limits of several kinds, priorities, fair keys, unique and debounced work, breakers, expiry, revocations, pauses, limits
set by hand, calls sent to other queues; deaths and a clock that is set back among them. Every call is audited.

In the end all is lifted, and all that can run has run within a bounded number of steps: no slot, line, group, lock or
turn outlives what it was for.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import World, raw_id
from tests.support import SEED, SOAK, Server

#: By task: the limits that its code declares.
TASKS = {
    "keyed": ("k 0.000000 1 1", "s 200.000000 2 0"),
    "pair": ("k 0.000000 1 2", "s 0.000000 1 3", "k 300.000000 1 0"),
    "q": ("o 0.000000 1 2",),
    "weak": ("b 0.5 4 3000",),
    "plain": (),
}
#: What an app is left with in which all has ended.
REGISTRY = {
    *("leases", "calls", "workers", "sets", "set-leases", "serving", "counters", "tasks", "limits", "marks", "shut"),
    *("result", "producer", "keeper", "pulse", "bell", "solo-bell", "alarm", "ready", "solo", "arrivals", "openings"),
    *(
        "terms",
        "published",
        "guests",
        "runs",
        "breakers",
        "set-back",
        "control",
        "throttle",
        "spent",
        "dead",
        "reasons",
        "messages",
        "unique",
    ),
}


class Together:
    """One history."""

    def __init__(self, world: World, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world, self.fleet = world, Fleet(world, "q", "urgent", incarnations=("w0", "w1"))
        self.incs, self.sent, self.ended = ["w0", "w1"], 0, Counter[bytes]()
        for task, limits in TASKS.items():
            self.fleet.publish(task, *limits)

    def step(self) -> None:
        """Do something."""
        acts = [self.send] * 4 + [self.take] * 6 + [self.settle] * 5 + [self.wait] * 3
        self.chance.choice([*acts, self.lose, self.revoke, self.control, self.set_back, self.take_alone])()

    def head(self, task: str, unique: bool) -> bytes:
        """What the head of a call says."""
        chance = self.chance
        keys = {f"_{n}": chance.choice("xyz") for n in (1, 3) if task == "pair" or (n == 1 and task == "keyed")}
        if chance.random() < 0.2:
            keys = {}
        options: dict[str, object] = {"priority": chance.choice([0, 0, 0, 5, -5])}
        if chance.random() < 0.4:
            options["fair"] = chance.choice(["a", "b", "c"])
        kind = chance.choice(["", "", "", "s", "d", "t", "debounced"]) if unique else ""
        if kind == "debounced":
            options |= {"lock": f"d0:{task}|deb", "debounce": "500:2000"}
        elif kind:
            options["lock"] = f"{kind}{chance.choice([0, 900]) or (900 if kind == 't' else 0)}:{task}|{kind}"
        return more(limited=True, **options, **keys)  # type: ignore[arg-type]

    def send(self) -> None:
        """A few calls, some of them to a queue that is not their task's."""
        calls = []
        for _ in range(self.chance.randint(1, 4)):
            self.sent += 1
            task = self.chance.choice(list(TASKS))
            options = self.chance.choice(
                [b"", b"", b"", b"x700", b"d400", b"m30", b"m30 x900", b"a%d" % (self.world.now + 500)]
            )
            queue = self.chance.choice(["q", "q", "urgent"])
            unique = (
                b"x" not in options
            )  # what has expired lives again when the clock is set back, beside its successor
            calls.append(sent(raw_id(self.sent), self.head(task, unique), task, queue, options))
        self.fleet.send_all(calls)

    def take(self) -> None:
        """A worker takes some, if it has no suspect."""
        inc = self.chance.choice(self.incs)
        if not any(held.suspect for held in self.fleet.look().held(inc).values()):
            self.fleet.fetch(want=self.chance.randint(1, 6), inc=inc, caps=" q=9 urgent=9 ")

    def take_alone(self) -> None:
        """A worker that holds nothing takes a suspect."""
        inc = self.chance.choice(self.incs)
        if not self.fleet.look().held(inc):
            self.fleet.fetch(want=1, inc=inc, mode="solo")

    def settle(self) -> None:
        """Some of what a worker holds ends in one way or another."""
        inc = self.chance.choice(self.incs)
        held = sorted(self.fleet.look().held(inc))
        some = held[: self.chance.randint(0, len(held))]
        self.fleet.fetch(*(self.outcome(id_) for id_ in some), inc=inc)

    def outcome(self, id_: bytes) -> Outcome:
        """How a delivery ends."""
        value = self.fleet.look()["messages"][id_]
        return self.chance.choice(
            [
                (id_, b""), (id_, b""), (id_, b"S"), Ended(id_, "failed", b"F"), Dead(id_, "failed", b"", b"F"),
                Again(id_, value, 0.0, "retried"), Again(id_, value, 0.7, "retried"),
                Again(id_, value, 0.3, "deferred"), Returned(id_), SlowDown(id_, 0.6),
            ]
        )  # fmt: skip

    def wait(self) -> None:
        """Time passes."""
        self.world.at(self.world.now + self.chance.choice([1, 100, 250, 600, 1500]))
        self.fleet.promote()

    def set_back(self) -> None:
        """The server's clock goes back by an hour, and a renewal notices."""
        self.fleet.renew()
        self.world.at(self.world.now - 3_600_000)
        self.fleet.renew()
        self.fleet.sound()

    def lose(self) -> None:
        """A worker's process ends, with what it runs or before it began."""
        inc = self.chance.choice(self.incs)
        held = sorted(self.fleet.look().held(inc))
        self.fleet.lose(inc, *(held if self.chance.random() < 0.5 else ()), died=self.chance.random() < 0.6)
        self.fleet.begin(inc)

    def revoke(self) -> None:
        """Somebody does not want a call any more."""
        if self.sent:
            self.fleet.revoke(raw_id(self.chance.randint(1, self.sent)))

    def control(self) -> None:
        """An operator pauses and resumes, sets limits and takes them back; a worker is started with new code."""
        task = self.chance.choice(list(TASKS))
        match self.chance.choice(["pause", "pause", "resume", "limit", "code", "publish"]):
            case "pause":
                self.fleet.pause(task, self.chance.choice([0.0, 1.0]))
            case "resume":
                self.fleet.resume(task)
            case "limit":
                self.fleet.limit(task, self.chance.choice(["s 0 1 1", "s 150 1 0"]))
            case "code":
                self.fleet.limit(task, "-")
            case _:
                self.fleet.publish(task, *self.chance.choice([TASKS[task], (), TASKS[task][::-1]]))
        self.fleet.sound(below_limits=False)

    def drain(self) -> None:
        """All is well again: what can run runs, within a bounded number of steps."""
        for task, limits in TASKS.items():
            self.fleet.resume(task)
            self.fleet.limit(task, "-")
            self.fleet.publish(task, *limits)
        self.fleet.resume("urgent")
        for _ in range(60 + 6 * self.sent):
            for inc in self.incs:
                self.fleet.done(*self.fleet.look().held(inc), inc=inc)
            self.fleet.fetch(want=20, inc=self.incs[0], caps=" q=20 urgent=20 ")
            self.fleet.fetch(want=1, inc=self.incs[1], mode="solo")
            due = min(self.fleet.look().table("schedule").values(), default=0.0)  # an eta may be an hour off
            self.world.at(max(self.world.now + 400, due))
            self.fleet.promote()
            snap = self.fleet.look()
            if snap.table("messages").keys() <= snap.table("reasons").keys():
                return
        raise AssertionError(f"still there: {self.fleet.look().places()}")


@pytest.mark.parametrize("seed", range(SEED, SEED + (600 if SOAK else 12)))
def test_whatever_happens_all_that_can_run_does_and_nothing_is_left_behind(unkept_server: Server, seed: int) -> None:
    world = World(unkept_server.url)
    history = Together(world, seed)
    history.fleet.sound = lambda below_limits=False: Fleet.sound(history.fleet, False)  # type: ignore[method-assign]
    for _ in range(120):
        history.step()

    history.drain()

    snap = history.fleet.look()
    assert {name.partition(":")[0] for name in snap.kinds} <= REGISTRY
    assert not snap.table("slots")
    world.clear()
    ids = {held.split(b" ", 1)[1] for held in snap.table("unique").values()}
    assert ids <= set(snap.table("messages")) or not ids, "a lock has outlived its message"
