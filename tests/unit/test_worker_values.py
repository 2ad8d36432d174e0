"""What a worker notes down: seats, pace, plan, and how it words its outcomes."""

from __future__ import annotations

import mmap

import msgpack
import pytest

from taskq import TaskQ
from taskq.broker.commands.outcomes import words
from taskq.broker.protocol import boottime
from taskq.broker.queue_set import QueueSet
from taskq.config import Settings
from taskq.errors import ConfigError
from taskq.message.details import error_detail, read_error_detail
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned
from taskq.worker.child.pace import BATCH, BUDGET, Pace
from taskq.worker.plan import read_weights, settings_for_scripts
from taskq.worker.seats import Seat, SeatTable, digest, region_size

IDS = [b"%016d" % i for i in range(8)]


@pytest.fixture
def seat() -> Seat:
    """A seat of eight places."""
    made = Seat(mmap.mmap(-1, region_size(8)), 0, 8)
    made.clear()
    return made


# -- seats ------------------------------------------------------------------------------------------------------------


def test_a_cleared_seat_says_nothing(seat: Seat) -> None:
    assert (seat.incarnation, seat.lease_until, seat.running()) == ("", 0.0, frozenset())


def test_a_seat_says_who_it_is_and_until_when_it_may_start_anything(seat: Seat) -> None:
    seat.begin("0123456789abcdef", 12.5)
    assert (seat.incarnation, seat.lease_until) == ("0123456789abcdef", 12.5)

    seat.renewed(27.5)
    assert (seat.incarnation, seat.lease_until) == ("0123456789abcdef", 27.5)


def test_of_a_batch_only_the_one_that_runs_is_named(seat: Seat) -> None:
    seat.load(IDS)
    assert seat.running() == frozenset()

    for index, id_ in enumerate(IDS):
        seat.memory[seat.index_at] = index
        assert seat.running() == {id_}

    seat.idle()
    assert seat.running() == frozenset()


def test_ids_of_other_lengths_are_named_by_their_digest(seat: Seat) -> None:
    ids = [b"a", b"b" * 200, IDS[0]]
    seat.load(ids)

    for index, id_ in enumerate(ids):
        seat.memory[seat.index_at] = index
        assert seat.running() == {digest(id_)}
    assert digest(IDS[0]) == IDS[0]
    assert len({digest(b"a"), digest(b"b"), digest(b"a" * 200)}) == 3
    assert len(digest(b"a" * 200)) == 16


def test_of_coroutines_all_that_run_are_named(seat: Seat) -> None:
    places = [seat.enter(id_) for id_ in IDS]
    assert seat.running() == set(IDS)

    for place in places[1:7]:
        seat.leave(place)
    assert seat.running() == {IDS[0], IDS[7]}

    seat.enter(b"again")
    assert seat.running() == {IDS[0], IDS[7], digest(b"again")}


def test_slots_do_not_touch_one_another() -> None:
    table = SeatTable(3, [128, 8])
    seats = [seat for child in range(3) for seat in table.of(child)]
    for seat in seats:
        seat.clear()

    for n, seat in enumerate(seats):
        seat.begin(f"{n:016x}", float(n))
        seat.load([b"%016d" % (n * 1000 + i) for i in range(seat.capacity)])
        seat.memory[seat.index_at] = seat.capacity - 1

    for n, seat in enumerate(seats):
        assert (seat.incarnation, seat.lease_until) == (f"{n:016x}", float(n))
        assert seat.running() == {b"%016d" % (n * 1000 + seat.capacity - 1)}


def test_the_clock_of_leases_never_goes_back() -> None:
    times = [boottime() for _ in range(1000)]

    assert times == sorted(times)


# -- pace -------------------------------------------------------------------------------------------------------------


def caps(pace: Pace) -> dict[str, int]:
    return {name: int(cap.split("/")[0]) for name, cap in (word.split("=") for word in pace.caps.split())}


def test_a_queue_not_seen_yet_has_no_cap_and_so_gives_one() -> None:
    assert Pace().caps == " "
    assert Pace(many=True).caps == "* "


@pytest.mark.parametrize(
    ("seconds", "cap"), [(0.0, BATCH), (1e-6, BATCH), (BUDGET / 10, 10), (BUDGET / 2, 2), (BUDGET, 1), (3600.0, 1)]
)
def test_a_fetch_brings_about_ten_milliseconds_of_work(seconds: float, cap: int) -> None:
    pace = Pace()

    pace.saw("q", seconds, 1)

    assert caps(pace) == {"q": cap}


def test_one_slow_message_counts_at_once_and_fast_ones_by_and_by() -> None:
    pace = Pace()
    pace.saw("q", BUDGET / 64, 1)
    assert caps(pace) == {"q": BATCH}

    pace.saw("q", 1.0, 1)
    assert caps(pace) == {"q": 1}

    pace.saw("q", BUDGET / 64, 1)
    assert caps(pace) == {"q": 1}
    for _ in range(60):
        pace.saw("q", BUDGET / 64, 1)
    assert caps(pace)["q"] > 32


def test_each_queue_has_its_own_pace_and_a_batch_counts_by_its_mean() -> None:
    pace = Pace()

    pace.saw("a", BUDGET, 10)
    pace.saw("b", BUDGET, 5)

    assert caps(pace) == {"a": 10, "b": 5}
    assert pace.caps.startswith(" ")
    assert pace.caps.endswith(" ")


def test_the_server_is_told_how_long_messages_take_when_that_has_changed() -> None:
    pace = Pace(["once"])

    pace.saw("once", 0.25, 1)
    pace.saw("slow", 2.0, 1)
    assert pace.caps == " once=0/250 slow=1/2000 "

    pace.saw("slow", 2.1, 1)  # not worth the writing
    assert pace.caps == " once=0/250 slow=1/2000 "
    for _ in range(30):
        pace.saw("slow", 3.0, 1)
    assert float(pace.caps.split("slow=1/")[1]) > 2500


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_outcomes_are_worded_in_groups_and_returned_ones_last_first() -> None:
    outcomes: list[Outcome] = [
        (IDS[0], b""),
        Returned(IDS[1]),
        (IDS[2], b"Sx"),
        (b"name", b"Sy"),
        Ended(IDS[3], "failed", b"F"),
        (IDS[4], b""),
        Dead(IDS[5], "failed", b"d", b"F"),
        Returned(IDS[6]),
        Again(IDS[7], b"value", 1.2345, "retried"),
    ]

    assert words(outcomes, 999) == [
        *[b"done", IDS[0] + IDS[4], 0, 0],
        *[b"done", IDS[2], 999, 1, b"Sx"],
        *[b"end", b"name", b"done", b"Sy", 999],
        *[b"end", IDS[3], "failed", b"F", 999],
        *[b"dead", IDS[5], "failed", b"d", b"F", 999],
        *[b"schedule", IDS[7], b"value", 1234, "retried"],
        *[b"return", IDS[6]],
        *[b"return", IDS[1]],
    ]
    assert words([], 999) == []


def test_a_delay_below_zero_is_none() -> None:
    assert words([Again(IDS[0], b"", -5.0, "retried")], 1)[3] == 0


def test_the_detail_of_an_error_comes_back() -> None:
    assert read_error_detail(error_detail("T", "m", "tb", worker="w")) == {
        "type": "T", "message": "m", "traceback": "tb", "worker": "w",
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc0", msgpack.packb([1]), b"\x81\xa4type"])
def test_a_detail_that_cannot_be_read_is_an_empty_one(data: bytes) -> None:
    detail = read_error_detail(data)

    assert (detail["type"], detail["traceback"]) == ("", "")
    assert isinstance(detail["message"], str)


# -- what is published ------------------------------------------------------------------------------------------------


def test_windows_and_limits_are_published_in_milliseconds_by_app_and_by_task() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")
    app.task(name="a", discard_after=1.5)(lambda: None)
    app.task(name="b")(lambda: None)
    settings = Settings(lease=20, result_ttl=0.5, discard_after=60)

    published = settings_for_scripts(settings, app.tasks)

    assert published["lease"] == 20_000
    assert published["result_ttl"] == 500
    assert (published["discard_after"], published["discard_after:a"], published["discard_after:b"]) == (
        60_000,
        1500,
        None,
    )
    assert (published["max_crashes"], published["dead_max"]) == (3, 100_000)
    assert settings_for_scripts(Settings(), {})["discard_after"] is None


# -- the app ----------------------------------------------------------------------------------------------------------


def test_two_functions_cannot_share_a_name_but_a_module_may_be_imported_again() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    def one() -> None: ...

    first, second = app.task(one), app.task(one)

    assert app.tasks[first.name] is second
    with pytest.raises(ConfigError, match="two tasks are named"):
        app.task(name=first.name)(lambda: None)


def test_an_option_that_does_not_exist_is_named() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    with pytest.raises(ConfigError, match="no option acks_late"):
        app.task(acks_late=True)(lambda: None)


def test_weights_are_read_unless_a_queue_has_such_a_name() -> None:
    assert read_weights("a:6,b,c:x,d:2", {"d:2"}, strict=False) == (["a", "b", "c:x", "d:2"], {"a": 6})
    assert read_weights("a,b", set(), strict=True) == (["a", "b"], {"a": 2, "b": 1})


@pytest.mark.parametrize(("text", "strict"), [("a:0", False), ("a:1001", False), ("a:6,b", True)])
def test_a_weight_that_cannot_work_is_refused(text: str, strict: bool) -> None:
    with pytest.raises(ConfigError, match="a weight is a whole number"):
        read_weights(text, set(), strict)


def test_sets_that_take_in_another_order_are_others() -> None:
    plain, weighted = QueueSet.of(["a", "b"]), QueueSet.of(["a", "b"], {"a": 6})
    assert weighted.order == " a=6 b=1 "
    assert QueueSet.of(["a", "b"], {"a": 6}, strict=True).order == "! a=6 b=1 "
    assert len({plain.id, weighted.id, QueueSet.of(["a", "b"], {"a": 5}).id}) == 3
    assert (plain.order, QueueSet.of(["a"]).order) == (" ", "")  # alone there is nothing to share
