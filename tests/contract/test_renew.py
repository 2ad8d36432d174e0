"""renew, and the rule of the pulse that it shares with reap."""

from __future__ import annotations

import pytest

from taskq.broker.commands import Renewal, reap, renew
from tests.contract.world import LEASE, MINUTE, SET, T0, Near, Scores, State, World, serving

FRESH = Near(T0 + LEASE)


def pulse(ago: float = 1000) -> State:
    """Somebody renewed that many ms ago."""
    return {"pulse": b"%d" % (T0 - ago)}


def test_the_leases_of_a_worker_and_its_set_are_renewed(world: World) -> None:
    before = world.seed(serving("one", "two", "other", until=T0 + 9000.0), pulse())

    renewal = world.run(renew(world.keys, LEASE, ["set"], ["one", "two"]))

    assert renewal.next_end == pytest.approx(9, abs=1)
    assert (renewal.suspects, renewal.lost) == (False, set())
    assert world.state() == before | {
        "leases": Scores({b"one": FRESH, b"two": FRESH, b"other": T0 + 9000.0}),
        "set-leases": Scores({b"set": FRESH}),
        "pulse": Near(T0),
    }


def test_again_it_renews_again(world: World) -> None:
    world.seed(serving("inc"))
    world.run(renew(world.keys, LEASE, ["set"], ["inc"]))
    world.at(T0 + 5000)

    world.run(renew(world.keys, LEASE, ["set"], ["inc"]))

    assert world.state() == serving("inc", until=Near(T0 + 5000 + LEASE)) | {"pulse": Near(T0 + 5000)}


def test_an_incarnation_that_is_not_registered_is_named_and_not_made(world: World) -> None:
    before = world.seed(serving("inc"), pulse())

    renewal = world.run(renew(world.keys, LEASE, [], ["gone", "inc"]))

    assert renewal.lost == {"gone"}
    assert world.state() == before | {"leases": Scores({b"inc": FRESH}), "pulse": Near(T0)}


def test_a_set_that_was_dropped_is_not_made_either(world: World) -> None:
    before = world.seed(pulse())

    renewal = world.run(renew(world.keys, LEASE, ["set"], []))

    assert renewal == Renewal(LEASE / 1000, False, set())
    assert world.state() == before | {"pulse": Near(T0)}


def test_suspects_of_the_own_sets_are_reported(world: World) -> None:
    world.seed(serving("inc"), {"solo:set": Scores({b"q": 1.0}), "solo:other": Scores({b"p": 1.0})})

    assert world.run(renew(world.keys, LEASE, ["set"], ["inc"])).suspects
    assert not world.run(renew(world.keys, LEASE, ["other"], ["inc"])).suspects


def test_a_lease_that_ended_while_others_renewed_is_not_given_a_fresh_one(world: World) -> None:
    world.seed(serving("late", until=T0 - 1000.0), pulse(ago=LEASE / 2 - 1000))

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state()["leases"] == Scores({b"late": T0 - 1000.0})


def test_a_lease_that_ended_but_was_not_reaped_still_belongs_to_its_owner(world: World) -> None:
    world.seed(serving("late", until=T0 - 1000.0), pulse())

    renewal = world.run(renew(world.keys, LEASE, [], ["late"]))

    assert renewal.lost == set()
    assert world.state()["leases"] == Scores({b"late": FRESH})


@pytest.mark.parametrize("how", ["renew", "reap"])
@pytest.mark.parametrize("silence", [LEASE / 2 + 1000, 100 * MINUTE])
def test_after_a_silence_every_lease_that_has_ended_or_is_about_to_gets_a_fresh_one(
    world: World, how: str, silence: float
) -> None:
    """Nobody could renew: the server was away, a snapshot was restored, or the clock jumped."""
    leases = {b"ended": T0 - 90.0 * MINUTE, b"soon": T0 + LEASE / 2 - 1000, b"later": T0 + LEASE / 2 + 2000}
    before = world.seed(serving("ended", "soon", "later"), {"leases": Scores(leases)}, pulse(ago=silence))

    if how == "renew":
        world.run(renew(world.keys, LEASE, [], []))
    else:
        assert world.run(reap(world.keys, 10)).moves == {}

    assert world.state() == before | {
        "leases": Scores({b"ended": FRESH, b"soon": FRESH, b"later": leases[b"later"]}),
        "pulse": Near(T0),
    }


def test_the_first_pulse_of_all_counts_as_a_silence(world: World) -> None:
    world.seed(serving("inc", until=T0 - 1000.0))

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state()["leases"] == Scores({b"inc": FRESH})


@pytest.mark.parametrize("how", ["renew", "reap"])
def test_when_the_clock_went_back_leases_are_clamped(world: World, how: str) -> None:
    leases = {b"far": T0 + 600.0 * MINUTE, b"near": T0 + 2000.0}
    world.seed(serving("far", "near"), {"leases": Scores(leases)}, pulse(ago=-600 * MINUTE))

    world.run(renew(world.keys, LEASE, [], []) if how == "renew" else reap(world.keys, 10))

    after = world.state()
    assert after["leases"] == Scores({b"far": FRESH, b"near": T0 + 2000.0})
    assert after["pulse"] == Near(T0)


def test_a_long_lease_is_left_alone_while_the_clock_runs_on(world: World) -> None:
    before = world.seed(serving("inc", until=T0 + 600.0 * MINUTE), pulse())

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state() == before | {"pulse": Near(T0)}


def test_after_a_silence_the_sets_of_queues_are_kept_as_well(world: World) -> None:
    """Else a worker that lives on would serve queues of which the server no longer tells it."""
    before = world.seed(serving("inc", until=T0 - 10.0 * MINUTE), pulse(ago=10 * MINUTE))

    world.run(reap(world.keys, 10))

    after = world.state()
    assert after["sets"] == before["sets"]
    assert after["serving"] == before["serving"]
    assert SET.id.encode() in after["set-leases"]
