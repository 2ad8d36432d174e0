"""fetch: how queues that are served together share the time of their workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from taskq.broker.commands import holding
from taskq.broker.queue_set import QueueSet
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import World, raw_id


class Shop:
    """Children that serve queues of which each has messages of one length; the time is that of their work."""

    def __init__(self, world: World, lasts: Mapping[str, float], order: str = " ", children: int = 1) -> None:
        self.lasts = lasts
        self.free_at = {f"inc{n}": world.now for n in range(children)}
        self.fleet = Fleet(world, *lasts, incarnations=tuple(self.free_at))
        self.fleet.queues = QueueSet("set", tuple(lasts), order)
        self.ids = iter(raw_id(n) for n in range(1 << 20))
        self.ran: Counter[str] = Counter()
        self.limits = ""

    def send(self, queue: str, n: int, **head: str) -> None:
        self.fleet.send_all([sent(next(self.ids), more(**head), queue=queue) for _ in range(n)])  # type: ignore[arg-type]

    def pace(self) -> str:
        told = (f"{name}={max(1, min(64, int(10 / ms)))}/{ms}" for name, ms in self.lasts.items())
        return " " + " ".join(told) + " "

    def step(self) -> bool:
        """Let the child that is free first take and run what it gets; says whether it got anything."""
        inc = min(self.free_at, key=lambda name: self.free_at[name])
        world, fleet = self.fleet.world, self.fleet
        world.at(max(world.now, self.free_at[inc]))
        fleet.calls[inc] += 1
        batch = world.run(
            holding.fetch(
                world.keys, inc, fleet.calls[inc], (), want=64, set_id="set", caps=self.pace(), order=fleet.queues.order
            )
        )
        took = 0.0
        for value in batch.messages[1::2]:
            queue = next(name for name in self.lasts if name.encode() in value[:60])
            self.ran[queue] += 1
            took += self.lasts[queue]
        world.raw("DEL", world.keys["processing:" + inc])
        self.free_at[inc] = world.now + max(took, 1.0)
        return bool(batch.messages)

    def time(self) -> dict[str, float]:
        """The share of the time that each queue had."""
        spent = {queue: n * self.lasts[queue] for queue, n in self.ran.items()}
        return {queue: ms / sum(spent.values()) for queue, ms in spent.items()}


@pytest.fixture
def shop(world: World) -> Callable[..., Shop]:
    def make(lasts: Mapping[str, float], order: str = " ", children: int = 1) -> Shop:
        made = Shop(world, lasts, order, children)
        made.fleet.audited = False  # what was taken is thrown away
        return made

    return make


@pytest.mark.parametrize("children", [1, 3])
@pytest.mark.parametrize(
    ("order", "shares"),
    [
        (" ", {"quick": 1 / 3, "middle": 1 / 3, "slow": 1 / 3}),
        (" quick=1 middle=2 slow=5 ", {"quick": 1 / 8, "middle": 2 / 8, "slow": 5 / 8}),
    ],
)
def test_queues_with_a_backlog_share_the_time_by_weight(
    shop: Callable[..., Shop], children: int, order: str, shares: dict[str, float]
) -> None:
    at = shop({"quick": 10.0, "middle": 150.0, "slow": 1500.0}, order, children)
    for queue, n in (("quick", 6000), ("middle", 500), ("slow", 60)):
        at.send(queue, n)

    while at.ran.total() < 2600 and at.ran["slow"] < 55:
        at.step()

    assert at.time() == pytest.approx(shares, rel=0.1)


def test_a_trickle_of_short_tasks_is_done_as_it_comes_beside_long_ones(shop: Callable[..., Shop]) -> None:
    """20 a second of 10 ms and 1 a second of 2 s, in front of one child for 30 s."""
    at = shop({"quick": 10.0, "slow": 2000.0})
    began = last = at.fleet.world.now
    while at.fleet.world.now < began + 30_000:
        seconds = int((at.fleet.world.now - last) / 1000)
        if seconds or last == began:
            at.send("quick", 20 * max(seconds, 1))
            at.send("slow", max(seconds, 1))
            last += 1000 * max(seconds, 1)
        at.step()

    assert at.ran["quick"] > 520
    assert at.ran["slow"] >= 10


def test_a_queue_that_had_nothing_saves_nothing_up(shop: Callable[..., Shop]) -> None:
    at = shop({"early": 100.0, "late": 100.0})
    at.send("early", 100)
    for _ in range(50):
        at.step()

    at.send("late", 100)
    for _ in range(40):
        at.step()

    assert at.ran["late"] == pytest.approx(20, abs=2)


def test_a_queue_that_is_empty_after_each_message_keeps_its_account(shop: Callable[..., Shop]) -> None:
    at = shop({"long": 1000.0, "short": 10.0})
    at.send("short", 4000)
    for _ in range(2000):
        if not at.fleet.world.raw("LLEN", at.fleet.world.keys["queue:long"]):
            at.send("long", 1)
        at.step()

    assert at.time()["long"] == pytest.approx(0.5, rel=0.1)


def test_a_line_at_a_gate_is_charged_to_its_queue(shop: Callable[..., Shop], world: World) -> None:
    at = shop({"plain": 100.0, "lined": 100.0})
    at.fleet.publish("t", "k 0 1 1000", queue="lined")
    at.send("plain", 200)
    for key in "ab":
        at.send("lined", 100, _1=key)

    for _ in range(100):
        at.step()

    assert at.time() == pytest.approx({"plain": 0.5, "lined": 0.5}, rel=0.1)


@pytest.mark.parametrize("key", ["spent:set", "ready:set"])
def test_a_deleted_account_lets_nobody_wait_for_what_others_had(
    shop: Callable[..., Shop], world: World, key: str
) -> None:
    at = shop({"one": 100.0, "two": 100.0})
    at.send("one", 300)
    at.send("two", 300)
    for _ in range(200):
        at.step()
    before = at.ran.copy()

    world.raw("DEL", world.keys[key])
    for inc in at.fleet.calls:
        world.run(holding.register(world.keys, inc, 15_000, b"", at.fleet.queues))
    for _ in range(40):
        at.step()

    assert {queue: at.ran[queue] - before[queue] for queue in at.lasts} == pytest.approx({"one": 20, "two": 20}, abs=3)


def test_who_runs_many_at_once_fills_its_room_from_every_queue(shop: Callable[..., Shop], world: World) -> None:
    at = shop({"one": 100.0, "two": 100.0, "three": 100.0})
    for queue in at.lasts:
        at.send(queue, 50)

    world.run(holding.fetch(world.keys, "inc0", 1, (), want=30, set_id="set", caps="* one=64/5 two=64/5 ", order=" "))

    held = Counter(value.split(b" ")[1] for value in world.state()["processing:inc0"].values())
    assert held == {b"one": 10, b"two": 10, b"three": 10}


def test_in_strict_order_any_number_of_queues_is_looked_at(shop: Callable[..., Shop]) -> None:
    names = [f"q{n:03}" for n in range(300)]
    at = shop(dict.fromkeys(names, 10.0), "! " + " ".join(f"{name}={n + 1}" for n, name in enumerate(names)) + " ")
    for name in names:
        at.send(name, 1)

    order = []
    while at.step():
        order += [name for name in names if at.ran[name] and name not in order]

    assert order == names[::-1]
