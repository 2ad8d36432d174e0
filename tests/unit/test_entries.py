"""Periodic entries: what is declared, how it is stored, what becomes of ticks that come late."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskq import ConfigError, SerializationError, Task, TaskQ, every
from taskq.broker.ticks import DueTick, Step
from taskq.errors import DecodeError
from taskq.message.envelope import decode
from taskq.message.ids import id_to_text
from taskq.message.stored import decode_fields
from taskq.periodic.entry import Entry, Ticker, code_revision
from taskq.periodic.schedule import Cron

HOUR = 3_600_000
#: A full hour, in ms; all ticks below are of entries that tick each hour.
T = 2_000_001_600_000
assert T % HOUR == 0


def new_app() -> TaskQ:
    return TaskQ("unit", "redis://127.0.0.1:1")


@pytest.fixture
def app() -> TaskQ:
    return new_app()


@pytest.fixture
def report(app: TaskQ) -> Task[..., Any]:
    @app.task(name="report", at_most_once=True)
    def report(day: str, copies: int = 1) -> None: ...

    return report


def entry(**options: Any) -> Entry:
    app = new_app()

    @app.periodic("hourly", every(3600), **options)
    @app.task(name="report")
    def report() -> None: ...

    return app.entries["hourly"]


def due(entry: Entry, tick: int | None = T) -> DueTick:
    return DueTick(entry.name, entry.stored, tick, b"%d" % T)


def fate(entry: Entry, late: float, tick: int | None = T) -> tuple[int | None, int | None, bool]:
    """The tick that is sent, the next one, whether ticks were left out; as hours after ``T`` where they are full."""
    step = entry.step(due(entry, tick), T + late)
    hours = [None if at is None else (at - T) / HOUR for at in (step.tick, step.follows and step.follows[0])]
    return hours[0], hours[1], step.dropped  # type: ignore[return-value]


# -- declaring --------------------------------------------------------------------------------------------


def test_an_entry_sends_the_message_that_a_call_of_its_task_sends(app: TaskQ, report: Task[..., Any]) -> None:
    assert app.periodic("r", "0 6 * * *", report, ("mon",), {"copies": 2}, headers={"a": 1}, expires=60) is report

    raw_id, value, options = app.entries["r"].message(T)
    _, called, _ = report.prepare_call(("mon",), {"copies": 2}, headers={"a": 1}).message

    sent, call = (decode(v[:2] + bytes(8) + v[2:]) for v in (value, called))
    assert id_to_text(raw_id) == f"cron:r:{T}"
    assert (sent.id, sent.head, sent.body) == (raw_id, call.head, call.body)
    assert sent.headers == call.headers | {"eta": T}
    assert options == b"x60000w"


def test_the_decorator_declares_the_same_and_leaves_the_task_alone(app: TaskQ, report: Task[..., Any]) -> None:
    decorated = app.periodic("a", "@daily", args=("mon",), tz="Europe/Vienna", queue="other")(report)

    assert decorated is report
    assert app.entries["a"].schedule == Cron("0 0 * * *", "Europe/Vienna")
    assert (app.entries["a"].task, app.entries["a"].queue) == ("report", "other")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"name": "two words"}, "is not a name"),
        ({"name": ""}, "is not a name"),
        ({"name": "x" * 171}, "may have 170"),
        ({"name": None}, "is not a name"),
        ({"schedule": "0 0 31 2 *"}, "never comes"),
        ({"tz": "Mars/Base"}, "unknown time zone"),
        ({"task": print}, "goes above @app.task"),
        ({"task": "report"}, "goes above @app.task"),
        ({"catch_up": "some"}, "catch_up of e must be one of skip, last, all"),
        ({"overlap": True}, "overlap of e must be one of allow, skip"),
        ({"window": -1}, "window of e must be"),
        ({"jitter": float("nan")}, "jitter of e must be"),
        ({"schedule": every(60), "jitter": 60}, "shorter than its interval, every 1m"),
        ({"countdown": 5}, "its own countdown"),
        ({"eta": datetime.now(timezone.utc)}, "its own eta"),
        ({"task_id": "a"}, "its own task_id"),
        ({"expires": datetime.now(timezone.utc)}, "a number of seconds after each tick"),
        ({"nonsense": 1}, "no option nonsense"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_declared(
    app: TaskQ, report: Task[..., Any], more: dict[str, Any], complaint: str
) -> None:
    given = {"name": "e", "schedule": "@daily", "task": report, "args": ("mon",)} | more

    with pytest.raises(ConfigError, match=complaint):
        app.periodic(**given)
    assert not app.entries


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("mon", 2, 3), {}), (("mon",), {"colour": 1})])
def test_arguments_that_are_not_those_of_the_task_are_refused(
    app: TaskQ, report: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=r"report\(\)"):
        app.periodic("e", "@daily", report, args, kwargs)


def test_arguments_that_cannot_be_written_are_refused(app: TaskQ, report: Task[..., Any]) -> None:
    with pytest.raises(SerializationError):
        app.periodic("e", "@daily", report, (object(),))


def test_an_entry_says_what_its_tasks_flow_options_say(app: TaskQ) -> None:
    @app.task(unique="until_done", max_length=10, priority=3)
    def job() -> None: ...

    app.periodic("e", "@daily", job, expires=300)
    entry = Entry.read("e", app.entries["e"].stored)

    assert (entry.task, entry.queue, entry.options) == (job.name, job.queue, b"x300000m10")
    assert set(decode_fields(entry.head[:2] + bytes(8) + entry.head[2:])) == {b"p", b"l", b"u"}


def test_two_entries_of_one_name_are_refused_unless_they_are_the_same(app: TaskQ, report: Task[..., Any]) -> None:
    app.periodic("e", "@daily", report, ("mon",))
    app.periodic("e", "@daily", report, ("mon",))

    with pytest.raises(ConfigError, match="two periodic entries are named 'e'"):
        app.periodic("e", "@daily", report, ("tue",))


# -- storing ----------------------------------------------------------------------------------------------


def test_what_is_stored_is_read_back(app: TaskQ, report: Task[..., Any]) -> None:
    app.periodic("a", "0 6 * * *", report, ("mon",), tz="Europe/Vienna", catch_up="all", window=timedelta(hours=1))
    app.periodic("b", every(90), report, ({1, 2},), overlap="skip", jitter=30, expires=5, ignore_result=True)

    for name, declared in app.entries.items():
        assert Entry.read(name, declared.stored) == declared


def test_an_entry_and_its_code_are_written_alike_in_every_process() -> None:
    """Else each start of a worker would be one of new code."""
    program = (
        "from taskq import TaskQ\napp = TaskQ('unit', 'redis://127.0.0.1:1')\n"
        "@app.periodic('e', '@daily', args=({'a', 'b', 'c', 'd'}, frozenset('efgh')))\n@app.task(name='t')\n"
        "def t(a, b): ...\n"
        "from taskq.periodic.entry import code_revision\n"
        "print(app.entries['e'].stored.hex(), code_revision({'e': app.entries['e'].stored}, {'t': t.fingerprint}))"
    )
    seeds = [{**os.environ, "PYTHONHASHSEED": seed} for seed in "12"]
    runs = [subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True) for env in seeds]

    assert runs[0].stdout == runs[1].stdout != b""


def test_code_is_told_apart_by_its_entries_and_by_its_tasks() -> None:
    entries, tasks = {"a": b"1", "b": b"2"}, {"t": b"sig"}
    first = code_revision(entries, tasks)

    assert code_revision(dict(reversed(entries.items())), tasks) == first
    others = [({"a": b"1"}, tasks), ({**entries, "a": b"2"}, tasks), (entries, {"t": b"new"}), (entries, {"u": b"sig"})]
    assert len({first, *(code_revision(e, t) for e, t in others)}) == 5


@pytest.mark.parametrize(
    "stored",
    [b"", b"0" * 16, b"0" * 16 + b"\xc1", b"0" * 16 + msgpack.packb([1]), b"0" * 16 + msgpack.packb({"v": 2})],
)
def test_bytes_that_are_no_entry_of_a_known_version_are_a_decode_error(stored: bytes) -> None:
    with pytest.raises(DecodeError):
        Entry.read("e", stored)


def _spoilt(**fields: Any) -> bytes:
    stored = entry().stored
    return stored[:16] + msgpack.packb(msgpack.unpackb(stored[16:]) | fields)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        _spoilt(v=2),
        _spoilt(when=0),
        _spoilt(when=["0 0 31 2 *", "UTC"]),
        _spoilt(when=["@daily", "Mars/Base"]),
        _spoilt(when=[1, 2]),
        _spoilt(window="long", when=1000),
        _spoilt(jitter=None),
        _spoilt(when=-5000),
        _spoilt(when=1),
        _spoilt(catch_up="some"),
        _spoilt(call=[b"", {}, b"", b""]),
        _spoilt(call=[b"\x01\x00\xff", {}, b"", b""]),
    ],
)
def test_an_entry_that_cannot_be_read_here_keeps_no_other_from_its_tick(stored: bytes) -> None:
    """Whoever keeps the time also keeps leases: whatever is stored, it goes on."""
    ticker, good = Ticker(), entry()

    for now in (T, T + 99 * HOUR):
        steps = ticker.steps([DueTick("bad", stored, T, b"%d" % T), due(good)], now)
        assert [step.due.name for step in steps] == ["hourly"]


# -- ticks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("catch_up", ["skip", "last", "all"])
@pytest.mark.parametrize("late", [0, 1, 9_999, 10_000])
def test_a_tick_on_time_is_sent_and_the_next_one_follows(catch_up: str, late: int) -> None:
    assert fate(entry(catch_up=catch_up), late) == (0, 1, False)


def test_a_new_entry_sends_nothing_and_waits_for_its_first_tick() -> None:
    assert fate(entry(), 5, tick=None) == (None, 1, False)


def test_ticks_on_time_are_sent_one_by_one() -> None:
    """A hiccup of a few seconds costs an entry of every second none of its ticks."""
    second = Entry.read("hourly", _spoilt(when=1000))

    assert (second.step(due(second), T + 9000).tick, second.step(due(second), T + 9000).dropped) == (T, False)


@pytest.mark.parametrize(
    ("options", "late", "expected"),
    [
        ({"catch_up": "last"}, 0.5, (0, 1, False)),
        ({"catch_up": "last"}, 3.5, (3, 4, True)),
        ({"catch_up": "last"}, 3.0, (3, 4, True)),
        ({"catch_up": "last", "window": 1200}, 3.2, (3, 4, True)),
        ({"catch_up": "last", "window": 1200}, 3.5, (None, 4, True)),
        ({"catch_up": "last"}, 24 * 400 + 0.5, (24 * 400, 24 * 400 + 1, True)),
        ({"catch_up": "skip"}, 0.5, (None, 1, True)),
        ({"catch_up": "skip"}, 3.5, (None, 4, True)),
        ({"catch_up": "skip"}, 3.0, (3, 4, True)),
        ({"catch_up": "all"}, 3.5, (0, 1, False)),
        ({"catch_up": "all", "window": 7200}, 3.5, (None, 2, True)),
        ({"catch_up": "all", "window": 7200}, 4.0, (None, 2, True)),
        ({"catch_up": "all", "window": 0}, 3.5, (None, 4, True)),
    ],
)
def test_missed_ticks_are_made_up_for_as_catch_up_says(
    options: dict[str, Any], late: float, expected: tuple[int | None, int, bool]
) -> None:
    assert fate(entry(**options), late * HOUR) == expected


def test_an_entry_of_few_ticks_finds_its_newest_missed_one() -> None:
    app = new_app()

    @app.periodic("yearly", "0 0 1 1 *", window=366 * 86400)
    @app.task(name="t")
    def t() -> None: ...

    yearly = app.entries["yearly"]
    first, now = (round(datetime(*at, tzinfo=timezone.utc).timestamp() * 1000) for at in [(2030, 1, 1), (2033, 6, 1)])
    step = yearly.step(DueTick("yearly", yearly.stored, first, b"0"), now)

    years = [datetime.fromtimestamp(at / 1000, timezone.utc).year for at in (step.tick or 0, (step.follows or (0,))[0])]
    assert years == [2033, 2034]


def _all_sent(entry: Entry, tick: int, now: float) -> list[int]:
    """What is sent until no tick is due any more."""
    sent: list[int] = []
    step = Step(due(entry, tick), None, None, (tick, entry.moment(tick)))
    while step.follows is not None and step.follows[1] <= now:
        step = entry.step(due(entry, step.follows[0]), now)
        sent += [] if step.tick is None else [step.tick]
    return sent


@example("all", 5 * HOUR, 0, 2)
@example("last", 5 * HOUR, 0, 2)
@given(
    st.sampled_from(["skip", "last", "all"]),
    st.integers(0, 5 * HOUR),
    st.integers(0, 6 * HOUR),
    st.integers(0, HOUR - 1),
)
def test_what_is_sent_in_the_end_is_what_the_rule_says(catch_up: Any, away: int, window: int, jitter: int) -> None:
    """By a list of all ticks and what each of the rules makes of it."""
    late = entry(catch_up=catch_up, window=window / 1000, jitter=jitter / 1000)
    all_due = [tick for tick in range(T, T + 7 * HOUR, HOUR) if late.moment(tick) <= late.moment(T) + away]
    now = late.moment(T) + away
    oldest = now - (10_000 if catch_up == "skip" else max(window, 10_000))
    young = [tick for tick in all_due if late.moment(tick) >= oldest]

    expected = young if away <= 10_000 or catch_up == "all" else [tick for tick in young if tick == all_due[-1]]

    assert _all_sent(late, T, now) == expected


@pytest.mark.parametrize("catch_up", ["skip", "last", "all"])
def test_a_tick_that_is_put_off_does_not_come_early_since_others_were_missed(catch_up: Any) -> None:
    moved = entry(catch_up=catch_up, jitter=3599, window=7200)
    ticks = range(T, T + 99 * HOUR, HOUR)
    early = next(
        tick for tick in ticks if moved.moment(tick) < tick + HOUR - 11_000 and moved.moment(tick + HOUR) > tick + HOUR
    )

    step = moved.step(due(moved, early), early + HOUR)

    assert step.tick in (None, early)
    assert step.follows == (early + HOUR, moved.moment(early + HOUR))


@given(st.integers(0, 10**6), st.integers(1, HOUR - 1))
def test_jitter_puts_a_tick_off_by_less_than_was_said_and_always_the_same(n: int, jitter: int) -> None:
    moved = entry(jitter=jitter / 1000)
    tick = n * HOUR

    assert tick <= moved.moment(tick) < tick + jitter
    assert Entry.read("hourly", moved.stored).moment(tick) == moved.moment(tick)


def test_jitter_differs_from_tick_to_tick_and_from_entry_to_entry() -> None:
    moved = entry(jitter=1800)
    other = Entry.read("other", moved.stored)
    shares = [moved.moment(tick) - tick for tick in range(T, T + 20 * HOUR, HOUR)]

    assert all(a != b for a, b in pairwise(shares))
    assert moved.moment(T) != other.moment(T)


@pytest.mark.parametrize("catch_up", ["skip", "last", "all"])
def test_jitter_longer_than_the_time_between_two_ticks_costs_none_of_them(catch_up: Any) -> None:
    """Else a tick that is put off far makes the next ones late, and what is late counts as missed."""
    moved = Entry.read("hourly", replace(entry(catch_up=catch_up), schedule=Cron("* * * * *"), jitter=HOUR).stored)
    sent, tick, moment = [], T, moved.moment(T)
    while tick < T + 24 * HOUR:
        step = moved.step(due(moved, tick), moment + 50)
        assert not step.dropped
        assert step.follows is not None
        assert tick <= moment < step.follows[0] <= step.follows[1]
        sent.append(step.tick)
        tick, moment = step.follows

    assert sent == list(range(T, T + 24 * HOUR, 60_000))


def test_an_entry_that_could_not_be_read_for_a_moment_is_read_again_a_minute_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of a time zone that was being replaced, memory that was short: it must not stop an entry for good."""
    ticker, good, read = Ticker(), entry(), Entry.read

    def fail(name: str, stored: bytes) -> Entry:
        raise OSError("too many open files")

    monkeypatch.setattr(Entry, "read", fail)
    assert [ticker.steps([due(good)], now) for now in (T, T + 1000, T + 61_000)] == [[], [], []]
    assert caplog.text.count("too many open files") == 1

    monkeypatch.setattr(Entry, "read", read)
    assert ticker.steps([due(good)], T + 62_000) == [], "not at once"
    assert [step.tick for step in ticker.steps([due(good)], T + 122_000)] == [T]
    assert len(ticker.steps([due(good, T + HOUR)], T - 9 * HOUR)) == 1
