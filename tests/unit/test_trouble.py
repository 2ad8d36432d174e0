"""The plan of faults: what a seed makes of it."""

from __future__ import annotations

from collections import Counter

import pytest

from taskq.showcase.breaking import choose
from taskq.showcase.trouble import Kind, make_plan

LEASE = 3.0


def test_a_seed_repeats_its_plan_and_another_gives_another() -> None:
    assert make_plan(1, 60, LEASE, Kind) == make_plan(1, 60, LEASE, Kind)
    assert make_plan(1, 60, LEASE, Kind) != make_plan(2, 60, LEASE, Kind)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_before_the_first_round_is_over(seed: int) -> None:
    plan = make_plan(seed, 60, LEASE, Kind)

    assert Counter(step.kind for step in plan[:7]) == Counter([*Kind, Kind.CHILD])


@pytest.mark.parametrize("seed", range(20))
def test_the_times_rise_and_leave_room_before_the_end(seed: int) -> None:
    times = [step.at for step in make_plan(seed, 20, LEASE, Kind)]

    assert len(times) > 10
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 19


@pytest.mark.parametrize("seed", range(20))
def test_a_stop_outlasts_the_lease_and_the_server_comes_back_before_a_producer_gives_up(seed: int) -> None:
    for step in make_plan(seed, 60, LEASE, Kind):
        assert 0 <= step.pick < 1
        assert (step.seconds > 0) == (step.kind in (Kind.STOP, Kind.CUT, Kind.SERVER))
        assert step.kind is not Kind.STOP or step.seconds > LEASE
        assert step.kind is not Kind.SERVER or step.seconds < 2


def test_what_cannot_be_broken_is_not_planned() -> None:
    plan = make_plan(1, 60, LEASE, [Kind.CUT, Kind.STOP])

    assert {step.kind for step in plan} == {Kind.CUT, Kind.STOP}


def test_a_pick_falls_on_one_of_the_candidates_and_the_others_follow() -> None:
    assert choose("abc", 0.0) == ["a", "b", "c"]
    assert choose("abc", 0.4) == ["b", "c", "a"]
    assert choose("abc", 0.999) == ["c", "a", "b"]
    assert choose("", 0.5) == []
