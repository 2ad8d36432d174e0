"""report and order: what workers say of themselves, and words for them; minute: the ledger as it was."""

from __future__ import annotations

import pytest

from taskq.broker.commands import fleet, keeping, looking
from tests.contract.world import MINUTE, T0, Near, Scores, World


def test_a_report_holds_for_a_while_and_is_renewed(world: World) -> None:
    world.run(fleet.report(world.keys, "one", 30.0, b"busy"))
    world.run(fleet.report(world.keys, "one", 30.0, b"idle"))

    assert world.run(fleet.reports(world.keys)) == {"one": b"idle"}
    assert world.state() == {"fleet": {b"one": b"idle"}, "fleet-ends": Scores({b"one": Near(T0 + 30_000)})}


def test_who_has_not_reported_for_a_while_is_forgotten_by_the_next(world: World) -> None:
    world.run(fleet.report(world.keys, "gone", 30.0, b"busy"))
    world.at(T0 + 31_000)

    assert world.run(fleet.report(world.keys, "here", 30.0, b"busy")) == 1
    assert set(world.state()["fleet"]) == set(world.state()["fleet-ends"]) == {b"here"}


def test_who_says_that_it_goes_leaves_nothing(world: World) -> None:
    world.run(fleet.report(world.keys, "one", 30.0, b"busy"))

    assert world.run(fleet.report(world.keys, "one", 30.0, b"")) == 1
    assert world.state() == {}
    assert world.run(fleet.report(world.keys, "one", 30.0, b"")) == 1, "again is as good"


def test_a_word_waits_for_a_worker_that_lives_for_a_minute_at_most(world: World) -> None:
    world.run(fleet.report(world.keys, "one", 30.0, b"busy"))

    assert world.run(fleet.order(world.keys, "one", "stop")) is True
    assert world.state()["orders:one"] == [b"stop"]
    assert 0 < world.ttl("orders:one") <= MINUTE


@pytest.mark.parametrize("after", [0, 31_000])
def test_no_word_is_left_for_a_worker_that_is_not_there(world: World, after: int) -> None:
    """Else the next one of its name would be told."""
    if after:
        world.run(fleet.report(world.keys, "one", 30.0, b"busy"))
    world.at(T0 + after)

    assert world.run(fleet.order(world.keys, "one", "stop")) is False
    assert "orders:one" not in world.state()


def test_the_ledger_is_kept_twice(world: World) -> None:
    keys = world.keys
    assert world.run(looking.minute(keys, 1)) is None
    for n in (1, 2, 3):
        world.seed({"counters": {b"q|accepted": b"%d" % n, b"a|b|done": b"7"}})
        world.at(T0 + n * MINUTE)
        world.run(keeping.keep_minute(keys))

    first, second = (world.run(looking.minute(keys, number)) for number in (1, 2))
    assert first is not None
    assert second is not None
    assert first.counters == {"q": {"accepted": 3}, "a|b": {"done": 7}}
    assert second.counters == {"q": {"accepted": 2}, "a|b": {"done": 7}}
    assert first.at - second.at == pytest.approx(60, abs=1)
    assert world.run(looking.survey(keys))["q"].counters == {"accepted": 3}


def test_what_is_held_is_read_with_its_gates_and_without_its_lock(world: World) -> None:
    world.seed({"processing:inc": {b"a": b"!1500 q\nt#1=k\n*lock\nt#2", b"b": b"2000 a.b:c"}})

    found = world.run(fleet.held(world.keys, "inc"))
    assert found == [
        fleet.Held(b"a", "q", 1.5, True, ("t#1=k", "t#2")),
        fleet.Held(b"b", "a.b:c", 2.0, False, ()),
    ]
