"""Breakers: when one opens, what it lets pass, what closes it again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskq.broker.commands import holding
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from tests.contract.fleet import Fleet, more
from tests.contract.world import MINUTE, T0, Near, Scores, World, message, raw_id

LIMITED = more(limited=True)
IDS = [raw_id(i) for i in range(30)]
#: Opens at 2 failures of the last 4, for a minute.
SHARED, OWN = "b 0.5 4 60000", "B 0.5 4 60000"


@pytest.fixture
def fleet(world: World) -> Fleet:
    made = Fleet(world, incarnations=("inc", "other"))
    made.publish("t", SHARED)
    made.send(*IDS, head=LIMITED)
    return made


def failed(id_: bytes) -> Outcome:
    return Ended(id_, "failed", b"")


def run(fleet: Fleet, how: str) -> None:
    """Run one after another: f fails, o is well, r is retried, d fails for good, n says nothing."""
    for one in how:
        (id_,) = fleet.take(1)
        fleet.fetch(
            {
                "f": failed(id_),
                "o": (id_, b""),
                "r": Again(id_, message(id_, more=LIMITED), 0.0, "retried"),
                "d": Dead(id_, "failed", b"", b""),
                "n": Returned(id_),
                "u": Again(id_, message(id_, more=LIMITED), 0.0, "deferred"),
                "x": Ended(id_, "discarded", b""),
            }[one]
        )


def mode(fleet: Fleet) -> bytes:
    return bytes(fleet.look().table("breakers").get(b"t", b"c"))[:1]


@pytest.mark.parametrize("how", ["offf", "ooff", "rrrr", "dood", "ooooooff", "nfxnfuoo"])
def test_it_opens_when_enough_of_the_last_runs_have_failed(fleet: Fleet, how: str) -> None:
    run(fleet, how)

    assert mode(fleet) == b"o"
    assert fleet.take(9) == []
    state = fleet.world.state()
    assert state["openings"] == Scores({b"t#b": Near(T0 + 60_000)})
    assert state["counters"][b"t|tripped"] == b"1"
    assert fleet.promote() == pytest.approx(60, abs=1)


@pytest.mark.parametrize("how", ["fff", "ooof", "fooo" + "fooo", "nnnnnn", "ffnnuxxx"])
def test_it_stays_closed_while_too_few_have_failed_or_run(fleet: Fleet, how: str) -> None:
    run(fleet, how)

    assert mode(fleet) == b"c"
    assert len(fleet.take(3)) == 3


def test_when_its_time_is_over_it_lets_one_pass_for_everyone(fleet: Fleet) -> None:
    run(fleet, "ffff")
    fleet.world.at(T0 + 59_000)
    assert fleet.take(5) == []
    fleet.world.at(T0 + 60_500)

    assert len(fleet.take(5)) == 1
    assert fleet.take(5, inc="other") == []
    assert mode(fleet) == b"h"


def half_open(fleet: Fleet) -> bytes:
    run(fleet, "ffff")
    fleet.world.at(T0 + 60_500)
    (id_,) = fleet.take(5)
    return id_


def test_the_one_that_is_well_closes_it(fleet: Fleet) -> None:
    fleet.done(half_open(fleet))

    assert mode(fleet) == b"c"
    assert len(fleet.take(5, inc="other")) == 5
    run(fleet, "ooof")
    assert mode(fleet) == b"c", "what was before counts no longer"


def test_the_one_that_fails_opens_it_for_as_long_again(fleet: Fleet) -> None:
    fleet.fetch(failed(half_open(fleet)))

    assert mode(fleet) == b"o"
    assert fleet.take(5) == []
    fleet.world.at(T0 + 119_000)
    assert fleet.take(5) == []
    fleet.world.at(T0 + 121_500)
    assert len(fleet.take(5)) == 1


@pytest.mark.parametrize("how", ["return", "lose", "limit", "discard"])
def test_the_one_of_which_nobody_can_say_is_followed_by_another(fleet: Fleet, how: str) -> None:
    id_ = half_open(fleet)
    match how:
        case "return":
            fleet.fetch(Returned(id_))
        case "lose":
            fleet.lose("inc", died=False)
        case "limit":
            fleet.fetch(SlowDown(id_, 0.0))
        case _:
            fleet.fetch(Ended(id_, "discarded", b""))
    fleet.world.at(T0 + 62_000)

    assert len(fleet.take(5, inc="other")) == 1
    assert mode(fleet) == b"h"


def test_a_refused_outcome_decides_nothing(fleet: Fleet) -> None:
    id_ = half_open(fleet)

    assert fleet.fetch((id_, b""), inc="other").fenced == 1

    assert mode(fleet) == b"h"


def test_a_run_that_began_before_the_clock_was_set_back_decides_nothing(fleet: Fleet) -> None:
    ids = fleet.take(8)
    fleet.world.at(T0 - 7_200_000)
    fleet.renew()
    fleet.fetch(*map(failed, ids[:4]))
    fleet.world.at(T0 - 7_200_000 + 60_500)
    assert len(fleet.take(5, inc="other")) == 1

    fleet.done(ids[4])

    assert mode(fleet) == b"h"


def test_what_ends_while_it_is_open_changes_nothing(fleet: Fleet) -> None:
    ids = fleet.take(8)
    fleet.fetch(*map(failed, ids[:4]))
    assert mode(fleet) == b"o"

    fleet.fetch(*((id_, b"") for id_ in ids[4:]))

    assert mode(fleet) == b"o"
    assert fleet.take(5) == []


ENDS = ["done", "failed", "dead", "retried", "return", "limit", "discard", "lose", "sync"]


def end(fleet: Fleet, how: str, *ids: bytes, inc: str = "inc") -> None:
    """End deliveries of an incarnation that has no others, in one way or another."""
    ways: dict[str, Callable[[bytes], Outcome]] = {
        "done": lambda id_: (id_, b""),
        "failed": failed,
        "dead": lambda id_: Dead(id_, "failed", b"", b""),
        "retried": lambda id_: Again(id_, message(id_, more=LIMITED), 0.0, "retried"),
        "return": Returned,
        "limit": lambda id_: SlowDown(id_, 0.0),
        "discard": lambda id_: Ended(id_, "discarded", b""),
    }
    if how == "lose":
        fleet.lose(inc, *ids)
    elif how == "sync":
        fleet.world.run(holding.sync(fleet.world.keys, inc, 90, 89, []))
    else:
        fleet.fetch(*map(ways[how], ids), inc=inc)


@pytest.mark.parametrize("how", ENDS)
def test_what_began_before_it_opened_does_not_decide_for_the_one_that_was_let_through(fleet: Fleet, how: str) -> None:
    """Neither closes it, nor opens it for as long again, nor lets another through."""
    old = fleet.take(3, inc="other")
    probe = half_open(fleet)

    end(fleet, how, *old, inc="other")

    assert mode(fleet) == b"h"
    fleet.begin("third")
    fleet.world.at(T0 + 61_000)
    assert fleet.take(5, inc="third") == []
    fleet.done(probe)
    assert mode(fleet) == b"c"


def test_what_began_before_it_opened_says_nothing_after_it_has_closed_either(fleet: Fleet) -> None:
    old = fleet.take(4, inc="other")
    fleet.done(half_open(fleet))

    fleet.fetch(*map(failed, old), inc="other")

    assert mode(fleet) == b"c"
    run(fleet, "ffff")
    assert mode(fleet) == b"o", "what began since does"


@pytest.mark.parametrize("how", ["done", "failed"])
def test_a_clock_that_is_set_back_does_not_make_the_one_let_through_unknown(fleet: Fleet, how: str) -> None:
    fleet.world.at(T0 + 60 * MINUTE)
    run(fleet, "ffff")
    fleet.world.at(T0 + 62 * MINUTE)
    (probe,) = fleet.take(5)
    fleet.renew()
    fleet.world.at(T0)
    fleet.renew()

    end(fleet, how, probe)

    assert mode(fleet) == (b"c" if how == "done" else b"o")
    if how == "done":
        run(fleet, "ffff")
        assert mode(fleet) == b"o"


def test_a_breaker_that_an_earlier_version_left_half_open_is_decided_by_what_it_let_through(fleet: Fleet) -> None:
    probe = half_open(fleet)
    fleet.world.raw("HSET", fleet.world.keys["breakers"], "t", "h 0 ")

    fleet.done(probe)

    assert mode(fleet) == b"c"


def test_the_breaker_of_the_only_task_holds_its_queue(world: World) -> None:
    fleet = Fleet(world)
    fleet.publish("q", OWN)
    fleet.send(*IDS[:8], head=LIMITED, task="q")
    ids = fleet.take(4)
    fleet.fetch(*map(failed, ids))

    assert fleet.take(4) == []
    assert fleet.look().table("gates") == {b"q#b": b" *q "}
    world.at(T0 + 60_500)
    assert fleet.take(4) == [IDS[4]]
    fleet.done(IDS[4])
    assert fleet.take(4) == IDS[5:8]


def test_a_breaker_that_is_no_longer_published_lets_all_pass(fleet: Fleet) -> None:
    run(fleet, "ffff")
    assert fleet.take(5) == []

    fleet.publish("t")

    assert len(fleet.take(5)) == 5


def test_a_breaker_published_anew_begins_anew(fleet: Fleet) -> None:
    """The one that was let through ended while there was none."""
    id_ = half_open(fleet)
    fleet.publish("t")
    fleet.done(id_)

    fleet.publish("t", SHARED)

    assert len(fleet.take(5)) == 5


def test_a_limit_beside_a_breaker_counts_on(world: World) -> None:
    fleet = Fleet(world)
    fleet.publish("t", "s 0.000000 1 2", SHARED)
    fleet.send(*IDS, head=LIMITED)

    assert fleet.take(5) == IDS[:2]
    fleet.fetch(failed(IDS[0]), failed(IDS[1]))
    ids = fleet.take(5)
    fleet.fetch(*map(failed, ids))

    assert (len(ids), fleet.take(5), fleet.look().table("slots")) == (2, [], {})


def test_a_clock_that_was_set_back_does_not_keep_it_open(fleet: Fleet) -> None:
    fleet.world.at(T0 + 60 * MINUTE)
    run(fleet, "ffff")
    assert fleet.take(9) == []
    fleet.renew()

    fleet.world.at(T0)
    fleet.renew()

    assert fleet.promote() == pytest.approx(60, abs=1)
    assert fleet.take(9) == []
    fleet.world.at(T0 + 60_500)
    fleet.promote()
    assert len(fleet.take(9)) == 1
    assert mode(fleet) == b"h"
