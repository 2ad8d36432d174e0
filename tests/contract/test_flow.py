"""Ranks, gates, locks, pauses and revocation: what is taken when, and what is free again afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from taskq.broker import commands
from taskq.broker.commands import QueueSet
from taskq.broker.outcomes import Again, Dead, Ended, Limited, Outcome, Returned, words
from taskq.envelope import encode_envelope, encode_head
from taskq.flow import Arguments, Breaker, Flow, Limit
from tests.contract.world import MINUTE, T0, World, raw_id
from tests.support import stopped

QUEUES = QueueSet("set", ("p", "q", "t"))


class Site:
    """An app in which time goes on only when it is told to; every step leaves the ledger balanced."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = float(T0)
        self.numbers: Counter[str] = Counter()
        self.sent = 0
        self.begin("inc")

    def run(self, command: commands.Command[Any]) -> Any:
        self.world.raw("SET", self.world.keys["clock"], repr(self.now))
        reply = self.world.run(stopped(command))
        assert set(self.world.balances().values()) <= {0}
        slots: Counter[bytes] = Counter()
        for name, held in self.world.state().items():
            if name.startswith("processing:"):
                slots.update(gate for value in held.values() for gate in value.split(b"\n")[1:] if b"#" in gate)
        counted = self.world.state().get("slots", {})
        assert {gate: int(n) for gate, n in counted.items()} == {g: n for g, n in slots.items() if g in counted}
        return reply

    def begin(self, inc: str) -> None:
        self.run(commands.register(self.world.keys, inc, 10 * MINUTE, b"info", QUEUES))

    def publish(self, task: str, flow: Flow, queue: str = "q", own: bool = False) -> None:
        self.run(commands.publish(self.world.keys, [(task, queue, flow.published(own))]))

    def send(
        self, flow: Flow, *users: str, task: str = "t", queue: str = "q", options: bytes = b"", **more: Any
    ) -> tuple[list[bytes], list[bytes]]:
        """Send a message for each user; answers their ids and what the server said."""
        ids, answers = [], []
        for user in users:
            self.sent += 1
            id_ = raw_id(self.sent)
            arguments = Arguments({"user": user, "weight": more.get("weight", 1.0)})
            head = encode_head(task, queue, more=flow.fields(task, arguments, more.get("priority")))
            message = (id_, head + encode_envelope(id_, {}, b""), flow.words + options)
            answers.append(self.run(commands.enqueue(self.world.keys, b"p", self.sent, [message])))
            ids.append(id_)
        return ids, answers

    def fetch(self, want: int = 0, outcomes: Sequence[Outcome] = (), inc: str = "inc", mode: str = "") -> list[bytes]:
        self.numbers[inc] += 1
        groups = words(outcomes, MINUTE)
        command = commands.fetch(
            self.world.keys, inc, self.numbers[inc], groups, want=want, set_id="set", mode=mode
        )  # fmt: skip
        return list(self.run(command).messages[::2])

    def done(self, ids: Iterable[bytes], inc: str = "inc") -> None:
        self.fetch(0, [(id_, b"") for id_ in ids], inc)

    def all_there_is(self, want: int = 100, inc: str = "inc") -> list[bytes]:
        """Take until a fetch brings nothing and no queue is ready."""
        taken: list[bytes] = []
        for _ in range(1000):
            some = self.fetch(want, inc=inc)
            taken += some
            if not some and not self.world.raw("ZCARD", self.world.keys["ready:set"]):
                return taken
        raise AssertionError("there is no end of it")

    def promote(self) -> float | None:
        wait = self.run(commands.promote(self.world.keys, "me", 100, 60_000)).wait
        return None if wait is None else float(wait)

    def counter(self, name: str, queue: str = "q") -> int:
        return int(self.run(commands.survey(self.world.keys))[queue].counters.get(name, 0))

    def clean(self, *left: str) -> None:
        """All has ended: nothing but the registry is left."""
        registry = {
            "leases",
            "calls",
            "workers",
            "sets",
            "serving",
            "set-leases",
            "counters",
            "tasks",
            "limits",
            "marks",
        }
        passing = {"keeper", "pulse", "bell:set", "solo-bell:set", "alarm", "arrivals", "openings"}
        found = {name for name in self.world.names() if not name.startswith(("producer:", "result:"))}
        assert found - registry - passing - set(left) == set()


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


# -- ranks -------------------------------------------------------------------------------------------------------


def test_higher_priorities_are_taken_first_and_in_order_within_one(site: Site) -> None:
    flow = Flow()
    sent = {}
    for priority in (0, 5, -100, 100, 5, 0, -1):
        sent.setdefault(priority, []).extend(site.send(flow, "", priority=priority)[0])

    expected = [id_ for priority in sorted(sent, reverse=True) for id_ in sent[priority]]
    assert [id_ for _ in range(7) for id_ in site.fetch(1)] == expected
    site.done(expected)
    site.clean()


def test_what_is_returned_goes_before_its_equals_and_in_order(site: Site) -> None:
    ids, _ = site.send(Flow(priority=3), *"abcd")
    assert site.fetch(3) == ids[:3]

    site.fetch(0, [Returned(id_) for id_ in ids[:3]])
    assert site.fetch(10) == ids


def test_a_retry_and_a_promotion_keep_the_priority(site: Site) -> None:
    (low,), _ = site.send(Flow(), "", priority=-3)
    (high,), _ = site.send(Flow(), "", priority=3, options=b"d5000")
    (plain,), _ = site.send(Flow(), "")
    assert site.fetch(1) == [plain]

    value = site.world.raw("HGET", site.world.keys["messages"], plain)
    site.fetch(0, [Again(plain, value, 0.0, "retried")])
    site.now += 6000
    site.promote()
    assert site.fetch(10) == [high, plain, low]


def test_many_of_one_key_do_not_starve_the_few_of_others(site: Site) -> None:
    flow = Flow(fair_by="user")
    site.send(flow, *["big"] * 300)
    first = site.fetch(100)
    small = set(site.send(flow, *[f"user{n}" for _ in range(3) for n in range(20)])[0])

    takes = 0
    while small:
        taken = site.fetch(1)
        small -= set(taken)
        takes += 1
    assert takes <= 66
    site.done(first)


def test_keys_take_turns_in_order_and_by_weight(site: Site) -> None:
    flow = Flow(fair_by="user", fair_weight=lambda weight, **_: weight)
    of_a, _ = site.send(flow, *["a"] * 12, weight=1.0)
    of_b, _ = site.send(flow, *["b"] * 12, weight=3.0)

    taken = [id_ for _ in range(12) for id_ in site.fetch(1)]

    assert [id_ for id_ in taken if id_ in of_a] == of_a[:3]
    assert [id_ for id_ in taken if id_ in of_b] == of_b[:9]


# -- gates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_no_more_run_than_the_limit_and_a_freed_slot_lets_the_next_go(site: Site, own: bool) -> None:
    flow = Flow(max_concurrency=2)
    site.publish("q" if own else "t", flow, own=own)
    ids, _ = site.send(flow, *"abcde", task="q" if own else "t")

    assert site.all_there_is() == ids[:2]
    site.done(ids[:1])
    assert site.all_there_is() == ids[2:3]
    site.fetch(0, [Ended(ids[1], "failed", b"F"), Returned(ids[2])])
    assert site.all_there_is() == ids[2:4]
    site.fetch(
        0, [Dead(ids[2], "failed", b"", b"F"), Again(ids[3], site.world.state()["messages"][ids[3]], 60, "retried")]
    )
    assert site.all_there_is() == ids[4:]
    site.now += 61_000
    site.promote()
    assert site.all_there_is() == ids[3:4]
    site.done(ids[3:])
    site.clean("dead:q", "reasons", "messages")


def test_a_limit_of_one_task_does_not_hold_up_its_neighbours(site: Site) -> None:
    flow = Flow(max_concurrency=1)
    site.publish("t", flow)
    limited, _ = site.send(flow, *"abc")
    others, _ = site.send(Flow(), *"de", task="other")

    assert site.all_there_is() == [limited[0], *others]
    assert site.run(commands.survey(site.world.keys))["q"].gated == 2
    site.done([limited[0], *others])
    assert site.all_there_is() == [limited[1]]
    site.done(site.all_there_is() or [limited[1]])
    assert site.all_there_is() == [limited[2]]
    site.done([limited[2]])
    site.clean()


def test_each_key_has_slots_of_its_own_and_no_key_has_no_limit(site: Site) -> None:
    flow = Flow(max_concurrency=1, key=lambda user, **_: user or None)
    site.publish("t", flow)
    ids, _ = site.send(flow, "ann", "ann", "bob", "", "", "bob", "ann")

    assert site.all_there_is() == [ids[0], ids[2], ids[3], ids[4]]
    site.done([ids[0]])
    assert site.all_there_is() == [ids[1]]
    site.done([ids[1], ids[2]])
    assert sorted(site.all_there_is()) == [ids[5], ids[6]]
    site.done([ids[3], ids[4], ids[5], ids[6]])
    site.clean()


def test_what_comes_later_stands_behind_what_waits_at_its_gate(site: Site) -> None:
    flow = Flow(max_concurrency=1, key="user")
    site.publish("t", flow)
    first, _ = site.send(flow, *["ann"] * 3)
    assert site.all_there_is() == first[:1]
    later, _ = site.send(flow, "ann")
    assert site.all_there_is() == []

    order = []
    for id_ in (first[0], *first[1:], *later):
        site.done([id_])
        order += site.all_there_is()
    assert order == [*first[1:], *later]


def test_an_unstarted_one_goes_back_before_those_in_its_line(site: Site) -> None:
    flow = Flow(max_concurrency=2, key="user")
    site.publish("t", flow)
    ids, _ = site.send(flow, *["ann"] * 4)
    assert site.all_there_is() == ids[:2]

    site.fetch(0, [Returned(ids[0]), Returned(ids[1])])
    assert site.all_there_is() == ids[:2]


def test_a_rate_lets_through_its_burst_and_then_one_at_a_time(site: Site) -> None:
    flow = Flow(rate="10/s", burst=3)
    site.publish("t", flow)
    ids, _ = site.send(flow, *"abcdef")

    assert site.all_there_is() == ids[:3]
    assert 0 < (site.promote() or 0) <= 0.101
    site.now += 99
    site.promote()
    assert site.all_there_is() == []
    site.now += 2
    site.promote()
    assert site.all_there_is() == ids[3:4]
    site.now += 10_000
    site.promote()
    assert site.all_there_is() == ids[4:]
    assert site.promote() is None


def test_the_burst_is_a_tenth_of_a_second_of_the_rate(site: Site) -> None:
    flow = Flow(rate="50/s")
    site.publish("q", flow, own=True)
    ids, _ = site.send(flow, *["x"] * 200, task="q")

    started: list[float] = []
    while len(started) < len(ids):
        started += [site.now] * len(site.fetch(100))
        site.now += 1000 * (site.promote() or 0)
    assert len(started) == len(ids)
    for begin in started:
        assert sum(begin <= at < begin + 1000 for at in started) <= 55
    assert started[-1] - started[0] <= 195 / 50 * 1000 * 1.03


def test_all_of_several_gates_must_be_open_and_none_is_passed_alone(site: Site) -> None:
    flow = Flow(limits=[Limit(max_concurrency=3), Limit(max_concurrency=1, key="user")])
    site.publish("t", flow)
    ids, _ = site.send(flow, "a", "a", "b", "c", "d")

    assert site.all_there_is() == [ids[0], ids[2], ids[3]]
    site.done([ids[2]])
    assert site.all_there_is() == [ids[4]]
    site.done([ids[0], ids[3], ids[4]])
    assert site.all_there_is() == [ids[1]]
    site.done([ids[1]])
    site.clean()


def test_slots_of_a_lost_worker_come_back_and_its_suspects_pass_the_gate_alone(site: Site) -> None:
    flow = Flow(max_concurrency=1)
    site.publish("t", flow)
    ids, _ = site.send(flow, *"ab")
    site.begin("lost")
    assert site.all_there_is(inc="lost") == ids[:1]

    close = commands.close(site.world.keys, "lost", died=True, alone=True, running=[ids[0]])
    assert [move.place for move in site.run(close)] == ["suspect"]
    assert site.all_there_is() == ids[1:]
    assert site.fetch(1, mode="solo") == []
    site.done(ids[1:])
    assert site.fetch(1, mode="solo") == ids[:1]
    site.done(ids[:1])
    site.clean()


def test_limited_by_hand_holds_until_those_of_the_code_hold_again(site: Site) -> None:
    flow = Flow(max_concurrency=5)
    site.publish("t", flow)
    ids, _ = site.send(flow, *"abcd")
    assert site.run(commands.limit(site.world.keys, "t", "s 0 1 1"))
    assert site.all_there_is() == ids[:1]
    site.publish("t", flow)  # as a worker that starts does

    assert site.all_there_is() == []
    assert site.run(commands.limit(site.world.keys, "t", "-"))
    assert site.all_there_is() == ids[1:]
    assert not site.run(commands.limit(site.world.keys, "nobody's", "-"))


def test_told_to_slow_down_shuts_the_gate_for_all_and_counts_nothing(site: Site) -> None:
    site.publish("t", Flow())
    ids, _ = site.send(Flow(), *"abc")
    assert site.fetch(1) == ids[:1]

    site.fetch(0, [Limited(ids[0], 5.0)])
    assert site.all_there_is() == []
    site.now += 4_900
    site.promote()
    assert site.all_there_is() == []
    site.now += 200
    site.promote()
    assert sorted(site.all_there_is()) == ids
    assert site.counter("returned") == 1
    site.done(ids)
    site.clean()


# -- the breaker ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("probe", ["works", "fails", "returns", "dies"])
def test_a_breaker_opens_lets_one_through_and_goes_by_what_becomes_of_it(site: Site, own: bool, probe: str) -> None:
    task, flow = "q" if own else "t", Flow(breaker=Breaker(failures=0.5, of=4, pause=10.0))
    site.publish(task, flow, own=own)
    ids, _ = site.send(flow, *"abcdefgh", task=task)
    first = site.fetch(4)
    outcomes: list[Outcome] = [Ended(id_, "failed", b"F") for id_ in first[:2]]

    site.fetch(0, [*outcomes, (first[2], b""), (first[3], b"")])
    assert site.all_there_is() == []
    site.now += 10_001
    site.promote()
    site.begin("other")
    (one,) = site.all_there_is(inc="other")
    assert site.all_there_is() == []
    if probe == "works":
        site.done([one], "other")
    elif probe == "fails":
        site.fetch(0, [Ended(one, "failed", b"F")], "other")
    elif probe == "returns":
        site.fetch(0, [Returned(one)], "other")
    else:
        site.run(commands.close(site.world.keys, "other", died=True, alone=True, running=[one]))
    left = [id_ for id_ in ids[4:] if id_ != one]
    if probe == "works":
        assert site.all_there_is() == left
    elif probe == "fails":
        assert site.all_there_is() == []
        site.now += 10_001
        site.promote()
        assert site.all_there_is() == left[:1]
    else:
        site.now += 10
        site.promote()
        assert len(site.all_there_is()) == 1
    assert site.counter("tripped", task if own else "t") == 1 if own else True


# -- unique work -----------------------------------------------------------------------------------------------------


def existing(answer: bytes) -> bytes:
    assert answer[:1] == b"~"
    return bytes.fromhex(answer[1:-1].decode())


@pytest.mark.parametrize("end", ["done", "failed", "dead", "revoked", "reaped"])
def test_work_is_unique_until_it_is_done(site: Site, end: str) -> None:
    flow = Flow(unique="until_done")
    (first,), _ = site.send(flow, "ann")
    (_, other), answers = site.send(flow, "ann", "bob")
    assert (existing(answers[0]), answers[1]) == (first, b"+")
    if end != "revoked":
        assert site.fetch(1) == [first]
        assert existing(site.send(flow, "ann")[1][0]) == first
        site.fetch(0, [Returned(first)])
        assert existing(site.send(flow, "ann")[1][0]) == first
        assert site.fetch(1) == [first]

    if end == "done":
        site.done([first])
    elif end == "failed":
        site.fetch(0, [Ended(first, "failed", b"F")])
    elif end == "dead":
        site.fetch(0, [Dead(first, "failed", b"", b"F")])
    elif end == "revoked":
        assert site.run(commands.revoke(site.world.keys, first, "")) == "revoked"
    else:
        close = commands.close(site.world.keys, "inc", died=True, alone=True, running=[first])
        site.run(commands.Command(None, [b"HSET", site.world.keys["settings"], "max_crashes", "1"], lambda r: r))
        site.run(close)
        site.begin("inc")
        site.numbers.clear()
    assert len(site.world.state()["unique"]) == 1  # that of bob
    (second,), answers = site.send(flow, "ann")
    assert answers == [b"+"]
    assert sorted(site.all_there_is()) == [other, second]
    site.done([other, second])
    site.clean("dead:q", "reasons", "messages", "settings")


def test_work_unique_until_its_start_is_free_when_it_is_taken(site: Site) -> None:
    flow = Flow(unique="until_start")
    (first,), _ = site.send(flow, "ann")
    assert existing(site.send(flow, "ann")[1][0]) == first
    assert site.fetch(1) == [first]
    (second,), answers = site.send(flow, "ann")
    assert answers == [b"+"]

    site.fetch(0, [Returned(first)])  # not started after all, and there is another by now
    assert site.world.raw("GET", site.world.keys["result:" + first.decode()]) == b"Xsuperseded"
    assert site.all_there_is() == [second]
    site.done([second])
    site.clean()


def test_one_returned_unstarted_takes_its_lock_back(site: Site) -> None:
    flow = Flow(unique="until_start")
    (first,), _ = site.send(flow, "ann")
    assert site.fetch(1) == [first]
    site.fetch(0, [Returned(first)])

    assert existing(site.send(flow, "ann")[1][0]) == first


def test_a_lock_holds_no_longer_than_its_time(site: Site) -> None:
    flow = Flow(unique="until_done", unique_for=5.0)
    (first,), _ = site.send(flow, "ann")
    site.now += 4_900
    assert existing(site.send(flow, "ann")[1][0]) == first
    site.now += 200

    (second,), answers = site.send(flow, "ann")
    assert answers == [b"+"]
    assert site.all_there_is() == [first, second]
    site.done([first])
    assert existing(site.send(flow, "ann")[1][0]) == second


def test_a_replay_takes_the_lock_again_or_is_refused(site: Site) -> None:
    flow = Flow(unique="until_done")
    (first,), _ = site.send(flow, "ann")
    site.fetch(1)
    site.fetch(0, [Dead(first, "failed", b"", b"")])
    (second,), _ = site.send(flow, "ann")

    assert site.run(commands.replay(site.world.keys, "q", first, b"")) is None
    site.done(site.fetch(1))
    assert site.run(commands.replay(site.world.keys, "q", first, b"")) is True
    assert existing(site.send(flow, "ann")[1][0]) == first
    assert second != first


def test_a_debounced_series_runs_once_with_its_last_arguments(site: Site) -> None:
    flow = Flow(debounce=2.0, max_wait=5.0)
    (first,), _ = site.send(flow, "a")
    for n in range(4):
        site.now += 1_500
        (last,), (answer,) = site.send(flow, "b")
        assert existing(answer) == first
        value = site.world.raw("HGET", site.world.keys["messages"], first)
        assert last in value
        due = site.world.state()["schedule"][first]
        assert due == pytest.approx(min(site.now + 2000, T0 + 5000), abs=100), n

    site.now += 100
    site.promote()
    assert site.all_there_is() == [first]
    assert site.send(flow, "c")[1] == [b"+"]


def test_a_throttled_series_is_its_first_call_for_a_time(site: Site) -> None:
    flow = Flow(throttle=30.0)
    (first,), _ = site.send(flow, "a")
    site.done(site.fetch(1))

    assert existing(site.send(flow, "b")[1][0]) == first
    (key,) = [name for name in site.world.names() if name.startswith("throttle:")]
    assert 0 < site.world.ttl(key) <= 30_000
    site.world.raw("DEL", site.world.keys[key])
    assert site.send(flow, "c")[1] == [b"+"]


# -- full, paused, revoked ---------------------------------------------------------------------------------------------


def test_a_full_queue_takes_no_more_until_there_is_room(site: Site) -> None:
    flow = Flow(max_length=2)
    ids, answers = site.send(flow, *"abc")
    assert answers == [b"+", b"+", b"!"]
    site.fetch(1)

    assert site.send(flow, *"de")[1] == [b"+", b"!"]
    assert site.all_there_is()[0] == ids[1]


@pytest.mark.parametrize("what", ["queue", "task"])
def test_nothing_is_taken_of_what_is_paused_until_it_is_resumed(site: Site, what: str) -> None:
    flow = Flow(max_concurrency=1, key="user")
    site.publish("t", flow)
    ids, _ = site.send(flow, "a", "a", "b")
    assert site.all_there_is() == [ids[0], ids[2]]
    name = "q" if what == "queue" else "t"
    neighbours, _ = site.send(Flow(), "", task="other")

    assert site.run(commands.pause(site.world.keys, name, 0.0, "me", "why not")) is True
    site.done([ids[0]])
    assert site.all_there_is() == ([] if what == "queue" else neighbours)
    assert site.run(commands.pause(site.world.keys, name, 0.0, "you", "still")) is False
    assert site.run(commands.resume(site.world.keys, name)) is True
    assert site.run(commands.resume(site.world.keys, name)) is False
    assert site.all_there_is() == [*(neighbours if what == "queue" else []), ids[1]] or [ids[1], *neighbours]
    site.done([*ids[1:], *neighbours])
    site.clean()


def test_a_pause_for_a_time_ends_by_itself_and_says_who_and_why(site: Site) -> None:
    ids, _ = site.send(Flow(), "a")
    site.run(commands.pause(site.world.keys, "q", 5.0, "ann", "a deploy"))
    found = site.run(commands.survey(site.world.keys))["q"].paused
    assert (found.author, found.reason, found.until - found.since) == ("ann", "a deploy", pytest.approx(5, abs=0.01))
    assert site.all_there_is() == []
    assert 4.5 < (site.promote() or 0) <= 5

    site.now += 5_001
    site.promote()
    assert site.all_there_is() == ids
    assert site.run(commands.survey(site.world.keys))["q"].paused is None


def test_suspects_of_a_paused_queue_wait_too(site: Site) -> None:
    ids, _ = site.send(Flow(), "a")
    site.begin("lost")
    site.all_there_is(inc="lost")
    site.run(commands.pause(site.world.keys, "q", 0.0, "me", ""))
    site.run(commands.close(site.world.keys, "lost", died=True, alone=True, running=ids))
    assert site.fetch(1, mode="solo") == []

    site.run(commands.resume(site.world.keys, "q"))
    assert site.fetch(1, mode="solo") == ids


@pytest.mark.parametrize("where", ["queue", "schedule", "ranked", "line", "suspects", "a long queue"])
def test_what_waits_and_is_revoked_does_not_run(site: Site, where: str) -> None:
    flow = Flow(max_concurrency=1) if where == "line" else Flow(priority=3 if where == "ranked" else 0)
    site.publish("t", flow)
    before = [] if where != "a long queue" else site.send(Flow(), *["x"] * 1001)[0]
    blocker = site.send(flow, "a")[0] if where == "line" else []
    assert site.all_there_is(1) == blocker if where == "line" else True
    (id_,), _ = site.send(flow, "a", options=b"d60000" if where == "schedule" else b"")
    if where == "line":
        assert site.all_there_is() == []
    if where == "suspects":
        site.begin("lost")
        site.all_there_is(inc="lost")
        site.run(commands.close(site.world.keys, "lost", died=True, alone=True, running=[id_]))

    assert site.run(commands.revoke(site.world.keys, id_, "changed my mind")) == "revoked"
    assert site.world.raw("GET", site.world.keys["result:" + id_.decode()]) == b"Xrevoked\nchanged my mind"
    taken = []
    for _ in range(len(before) // 100 + 2):
        some = site.fetch(100)
        taken += some
        site.done(some)
    assert taken == before
    assert site.fetch(1, mode="solo") == []
    site.done(blocker)
    assert site.counter("discarded") == 1
    assert site.run(commands.revoke(site.world.keys, id_, "again")) == "unknown"
    site.clean()


def test_dead_letters_are_not_revoked(site: Site) -> None:
    (id_,), _ = site.send(Flow(), "a")
    site.fetch(1)
    site.fetch(0, [Dead(id_, "failed", b"", b"")])

    assert site.run(commands.revoke(site.world.keys, id_, "")) == "dead"
