"""Lines: in which order what waits for gates passes them, and what that costs however many there are."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from taskq.broker.commands import auditing
from taskq.message.outcome import Ended, Returned, SlowDown
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import T0, Scores, World, message, raw_id

A, B, C, D, E = map(raw_id, range(1, 6))
#: One at a time of each key; one each 100 ms of all. A task may have both: `limits=[Limit(...), Limit(...)]`.
ONE_EACH, RATE = "k 0.000000 1 1", "s 100.000000 1 0"


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world, incarnations=("inc", "other"))


def key_of(id_: bytes) -> bytes:
    return id_[:5]


def of_key(key: int, n: int) -> list[bytes]:
    return [b"k%04d-%010d" % (key, i) for i in range(n)]


def run_all(fleet: Fleet, n: int, *, want: int = 4, step: float = 25.0) -> tuple[list[bytes], int]:
    """Run until ``n`` are done, a moment after another; answers their order, and how many fetches brought something."""
    order: list[bytes] = []
    fetches = 0
    for _ in range(n * 8 + 100):
        got = fleet.fetch(want=want, caps=" q=128 ").messages[::2]
        fetches += bool(got)
        order += got
        fleet.done(*got)
        if len(order) >= n:
            return order, fetches
        fleet.world.at(fleet.world.now + step)
    raise AssertionError(f"only {len(order)} of {n} were done")


def commands_of(fleet: Fleet, want: int = 1) -> tuple[int, list[bytes]]:
    """How many commands the server executes for a fetch, and what that brings."""

    def executed() -> int:
        text = fleet.world.raw("INFO", "commandstats").decode()
        return sum(map(int, re.findall(r"calls=(\d+)", text)))

    before = executed()
    got = fleet.fetch(want=want, caps=" q=128 ").messages[::2]
    return executed() - before, got


def settle_down(fleet: Fleet) -> None:
    """Take what can be taken, until no queue and no line is ready."""
    while fleet.world.raw("EXISTS", fleet.world.keys["ready:set"]):
        fleet.fetch(want=128, caps=" q=128 ")


# -- order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(RATE,), ("o 100.000000 1 0",), ("s 0.000000 1 2", RATE)])
def test_a_key_with_very_many_waiting_keeps_its_order_through_gates(fleet: Fleet, others: tuple[str, ...]) -> None:
    """And each message is taken in one fetch; those of other keys come in between."""
    fleet.publish("q", ONE_EACH, *others)
    hot, rest = of_key(0, 60), [of_key(key, 2) for key in range(1, 6)]
    with fleet.unaudited():
        fleet.send_all([sent(id_, more(_1="hot"), task="q") for id_ in hot])
        fleet.world.at(T0 + 1)
        fleet.send_all([sent(id_, more(_1=f"k{n}"), task="q") for n, ids in enumerate(rest) for id_ in ids])

        order, fetches = run_all(fleet, 70)

    assert [id_ for id_ in order if key_of(id_) == b"k0000"] == hot
    for ids in rest:
        assert [id_ for id_ in order if id_ in ids] == ids
    assert fetches <= 70
    assert not {"gates", "slots", "heads:q|~q"} & set(fleet.world.names())


def test_what_comes_later_with_a_higher_priority_passes_a_gate_first(fleet: Fleet) -> None:
    """Though it finds others in line, and whether they have ranks or not."""
    fleet.publish("t", "s 0.000000 1 1")
    fleet.send(*(raw_id(100 + i) for i in range(20)), head=more(limited=True))
    fleet.send(*(raw_id(200 + i) for i in range(20)), head=more(priority=-3, limited=True))
    first = fleet.take(5)
    assert first == [raw_id(100)]
    while fleet.fetch(want=5, caps=" q=128 ").messages:
        pass
    fleet.send(A, head=more(priority=100, limited=True))
    fleet.send(B, head=more(priority=7, limited=True))
    fleet.send(C, head=more(priority=100, limited=True))

    order = []
    for _ in range(43):
        fleet.done(*first)
        order += (first := fleet.take(5))

    expected = [A, C, B, *(raw_id(100 + i) for i in range(1, 20)), *(raw_id(200 + i) for i in range(20))]
    assert order == expected


@pytest.mark.parametrize(
    "limits", [("s 0.000000 1 1",), ("s 0.000000 1 1", "k 0.000000 1 5"), ("k 0.000000 1 5", "s 0.000000 1 1")]
)
@pytest.mark.parametrize("late", [True, False])
def test_tenants_take_turns_at_a_gate(fleet: Fleet, limits: tuple[str, ...], late: bool) -> None:
    """One with very many messages waiting, of which none could start for long, keeps nobody behind it."""
    fleet.publish("t", *limits)
    number = f"_{1 + [limit[0] for limit in limits].index('k')}" if len(limits) > 1 else "_9"

    def send(key: int, n: int) -> list[bytes]:
        ids = of_key(key, n)
        fleet.send_all([sent(id_, more(fair=f"k{key}", limited=True, **{number: f"k{key}"})) for id_ in ids])
        return ids

    with fleet.unaudited():
        large = send(0, 300)
        (running,) = fleet.take(1)
        for _ in range(10 if late else 0):
            fleet.fetch(want=64, caps=" q=128 ")
        small = send(1, 10)
        order = []
        for _ in range(24):
            fleet.done(running)
            (running,) = fleet.take(1)
            order.append(running)

    share = Counter(map(key_of, order[:20]))
    assert abs(share[b"k0000"] - share[b"k0001"]) <= 2, share
    assert [id_ for id_ in order if id_ in small] == small
    assert [id_ for id_ in order if id_ in large] == large[1 : 1 + len([id_ for id_ in order if id_ in large])]


def test_who_is_returned_comes_first_in_its_line_and_keeps_it_in_order(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 2")
    ids = [raw_id(i) for i in range(6)]
    fleet.send(*ids, head=more(priority=4, limited=True))
    assert fleet.take(6) == ids[:2]
    fleet.fetch(*map(Returned, ids[:2]))

    assert fleet.look().lines() == {("q", "t#1"): ids}
    assert fleet.take(2) == ids[:2]


def test_those_without_a_key_take_turns_with_those_that_have_one(fleet: Fleet) -> None:
    """A limit with a key does not hold a call whose key is None; the one without a key does, in order of age."""
    fleet.publish("t", RATE, "k 0.000000 1 1")
    ids = [raw_id(i) for i in range(20)]
    for n, id_ in enumerate(ids):
        fleet.world.at(T0 + n)
        fleet.send(id_, head=more(_2=f"k{n}") if n % 2 else more(limited=True))
        fleet.fetch(want=1 if n == 0 else 4, caps=" q=128 ")

    order, _ = run_all(fleet, 19)

    assert order == ids[1:]


# -- work --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [(ONE_EACH,), (ONE_EACH, RATE), (ONE_EACH, RATE, "s 0.000000 1 50")])
def test_a_message_taken_costs_the_server_as_much_however_many_lines_there_are(
    fleet: Fleet, limits: tuple[str, ...]
) -> None:
    costs = []
    fleet.publish("t", *limits)
    with fleet.unaudited():
        for n in (20, 400):
            fleet.send_all([sent(id_, more(_1=f"k{n}-{key}")) for key in range(n) for id_ in of_key(n + key, 2)])
            settle_down(fleet)
            fleet.world.at(fleet.world.now + 1000)
            fleet.done(max(fleet.look().held("inc")))
            cost, got = commands_of(fleet)
            costs.append(cost)
            assert len(got) == 1

    assert costs[1] <= costs[0] + 10


def test_lifting_limits_and_pauses_of_very_many_lines_is_done_in_pieces(fleet: Fleet) -> None:
    """No call looks at all of them; and all pass."""
    n = 300
    fleet.publish("t", ONE_EACH)
    with fleet.unaudited():
        fleet.send_all([sent(id_, more(_1=f"k{key}")) for key in range(n) for id_ in of_key(key, 2)])
        held: list[bytes] = []
        while len(held) < n:
            held += fleet.fetch(want=128, caps=" q=128 ").messages[::2]
        settle_down(fleet)
        fleet.pause("q")
        fleet.publish("t")
        for _ in range(60):
            fleet.fetch(want=128, caps=" q=128 ")
        fleet.resume("q")
        worst, taken = 0, 0
        for _ in range(200):
            cost, got = commands_of(fleet, want=10)
            worst, taken = max(worst, cost), taken + len(got)
            if taken == n:
                break

    assert taken == n
    assert worst < 1500


# -- what is worked out anew ---------------------------------------------------------------------------------------


def reopened(fleet: Fleet) -> Counter[str]:
    """What of the gates was put right."""
    return fleet.world.run(auditing.reopen(fleet.world.keys, list(fleet.look().table("gates"))))


@pytest.mark.parametrize("lost", ["", "heads:q|~t", "gates", "openings"])
def test_lines_in_a_group_are_sound_and_come_back_when_the_group_is_lost(fleet: Fleet, lost: str) -> None:
    fleet.publish("t", ONE_EACH, RATE, "s 0.000000 1 3")
    ids = [id_ for key in range(5) for id_ in of_key(key, 3)]
    with fleet.unaudited():
        fleet.send_all([sent(id_, more(_1=f"k{int(key_of(id_)[1:])}")) for id_ in ids])
        settle_down(fleet)
        fleet.fetch(want=1, caps=" q=128 ")
        assert reopened(fleet) == {}
        if lost:
            fleet.world.raw("DEL", fleet.world.keys[lost])
            waiting = [(id_, "") for id_ in ids]
            fleet.world.run(auditing.mend(fleet.world.keys, waiting, many=False))
            reopened(fleet)
            reopened(fleet)
        done = 0
        while done < len(ids):
            held = list(fleet.look().held("inc"))
            done += len(held)
            fleet.done(*held)
            fleet.world.at(fleet.world.now + 120)
            fleet.fetch(want=5, caps=" q=128 ")
            assert fleet.world.now < T0 + 60_000, f"only {done} were done"


@pytest.mark.parametrize("limit", [RATE, "o 100.000000 1 0"])
@pytest.mark.parametrize("keyed", [False, True])
def test_an_audit_leaves_a_gate_that_is_about_to_be_opened_to_whoever_keeps_the_time(
    fleet: Fleet, limit: str, keyed: bool
) -> None:
    """After a server was away for a while all openings are late, and nothing is missing."""
    fleet.publish("t", *[ONE_EACH] * keyed, limit)
    fleet.send(A, B, C, head=more(_1="k") if keyed else more(limited=True))
    assert fleet.take(2) == [A]
    fleet.done(A)

    fleet.world.at(T0 + 60_000)

    fleet.sound()
    fleet.promote()
    assert fleet.take(1) == [B]


def test_an_audit_leaves_a_line_that_was_told_to_see_for_itself(fleet: Fleet) -> None:
    """It was told of the slot of its key, another gate has shut since: it sees that, and when it opens, by itself."""
    fleet.publish("t", ONE_EACH, RATE)
    fleet.send(A, B, head=more(_1="k"))
    fleet.send(C, D, head=more(_1="other"))
    fleet.take(1)
    fleet.world.at(T0 + 100)
    fleet.fetch((A, b""))

    fleet.take(1, inc="other")

    fleet.sound()


def test_a_line_that_waits_at_an_open_gate_only_behind_others_is_told(fleet: Fleet) -> None:
    """Those others are of limits that somebody has replaced by hand since."""
    fleet.publish("t", ONE_EACH, RATE)
    fleet.send_all([sent(A, more(_1="k")), sent(B, more(_1="other"))])
    assert fleet.take(2) == [A]
    fleet.limit("t", "s 100.000000 1 0")
    fleet.world.at(T0 + 1000)
    fleet.send(C, head=more(priority=5, limited=True))

    assert fleet.fetch(want=1, caps=" q=128 ").messages[::2] == [B]

    assert fleet.look().table("gates")[b"t#1"] == b" q "
    assert run_all(fleet, 1)[0] == [C]


@pytest.mark.parametrize("by", ["a pause", "RateLimited", "a limit by hand", "a breaker"])
def test_what_comes_after_a_limit_has_gone_runs_after_what_that_has_left_waiting(fleet: Fleet, by: str) -> None:
    fleet.publish("t", *["b 0.5 1 1000"] * (by == "a breaker"))
    fleet.send(A, B, C)
    match by:
        case "a pause":
            fleet.pause("t")
        case "RateLimited":
            fleet.fetch(SlowDown(*fleet.take(1), 1.0))
        case "a limit by hand":
            fleet.limit("t", "s 1000.000000 1 0")
            fleet.done(*fleet.take(1))
        case _:
            fleet.fetch(Ended(*fleet.take(1), "failed", b""))
    assert fleet.take(3) == []
    fleet.send(D)
    if by == "a pause":
        fleet.resume("t")
    fleet.limit("t", "-")
    fleet.publish("t")
    fleet.world.at(T0 + 2000)

    order, _ = run_all(fleet, int(fleet.look().table("counters")[b"q|gated"]) + 1)

    assert order == sorted(order)
    assert order[-1] == D


def test_what_is_left_of_a_line_of_other_limits_looks_for_its_own_gates(fleet: Fleet) -> None:
    """In it stand those with a key and those without, and only the first waits for that key, as another line does."""
    fleet.publish("t", "k 300.000000 1 0", "k 0.000000 1 9")
    fleet.limit("t", "s 10000.000000 1 0")
    fleet.send(A, B, C, head=more(_1="x"))
    assert fleet.take(3) == [A]
    fleet.limit("t", "-")
    assert fleet.take(3) == [B]
    for id_, head in [(D, more(_1="x", _2="y")), (E, more(limited=True))]:
        fleet.world.at(fleet.world.now + 1)
        fleet.send(id_, head=head)
        assert fleet.take(3) == []

    fleet.world.at(T0 + 301)
    fleet.promote()

    assert fleet.take(3) == [C, E]


# -- what an earlier version left ------------------------------------------------------------------------------------


def test_lines_as_an_earlier_version_left_them_are_emptied(fleet: Fleet) -> None:
    """Those of several keys stood in the line of the gate they had in common, or of the last one that was closed."""
    fleet.publish("t", "s 0.000000 1 2", "k 0.000000 1 1")
    ids = [raw_id(i) for i in range(8)]
    keys = dict(zip(ids, ["x", "y", "x", "y", "z", "z", "x", "u"], strict=True))
    fleet.world.seed(
        {
            "messages": {id_: message(id_, more=more(_2=key)) for id_, key in keys.items()},
            "gated:q|t#1": ids[:6],
            "gated:q|t#2=x": ids[6:7],
            "gated:q|t#2=u": ids[7:],
            "gates": {b"t#1": b" q ", b"t#2=x": b" q ", b"t#2=u": b" q "},
            "counters": {b"q|accepted": b"8", b"q|gated": b"8"},
            "ready:set": Scores({b"q|t#1": 1.0, b"q|t#2=x": 2.0, b"q|t#2=u": 3.0}),
            "bell:set": [b"1"],
        }
    )

    order: list[bytes] = []
    for n in range(40):
        fleet.world.at(T0 + n)
        got = fleet.fetch(want=2, caps=" q=2 ").messages[::2]
        order += got
        fleet.done(*got)

    assert sorted(order) == ids
