"""Schedules: when something ticks, above all where clocks are put forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq import ConfigError, crontab, every
from taskq.periodic.schedule import Cron, Every, read_schedule

NEW_YORK, LORD_HOWE = "America/New_York", "Australia/Lord_Howe"


def ms(moment: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def ticks(schedule: Cron | Every, after: float, n: int) -> list[int]:
    found: list[int] = []
    for _ in range(n):
        tick = schedule.after(found[-1] if found else after)
        assert tick is not None
        found.append(tick)
    return found


def shown(expression: str, zone: str, start: str, n: int) -> list[str]:
    """The next ticks as the clocks of the zone show them, after ``start`` by those clocks."""
    found = ticks(read_schedule(expression, zone), ms(start, zone), n)
    return [f"{datetime.fromtimestamp(tick / 1000, ZoneInfo(zone)):%d %H:%M %z}" for tick in found]


# -- clock changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expression", "start", "expected"),
    [
        (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", ["08 03:00 -0400", "09 02:30 -0400"]),
        (NEW_YORK, "0,30 1-3 * * *", "2026-03-08 01:10", ["08 01:30 -0500", "08 03:00 -0400", "08 03:30 -0400"]),
        (NEW_YORK, "*/15 2 * * *", "2026-03-07 12:00", ["08 03:00 -0400", "09 02:00 -0400"]),
        (NEW_YORK, "0 */2 * * *", "2026-03-08 00:10", ["08 03:00 -0400", "08 04:00 -0400"]),
        ("Europe/Vienna", "15 2 * * *", "2026-03-28 12:00", ["29 03:00 +0200", "30 02:15 +0200"]),
        ("America/Santiago", "30 0 * * *", "2026-09-05 12:00", ["06 01:00 -0300", "07 00:30 -0300"]),
        ("America/Santiago", "@daily", "2026-09-05 12:00", ["06 01:00 -0300", "07 00:00 -0300"]),
        (LORD_HOWE, "15 2 * * *", "2026-10-03 12:00", ["04 02:30 +1100", "05 02:15 +1100"]),
        ("Pacific/Apia", "30 9 30 12 *", "2011-12-01 00:00", ["31 00:00 +1400", "30 09:30 +1400"]),
    ],
)
def test_a_skipped_time_ticks_once_at_the_next_minute_there_is(
    zone: str, expression: str, start: str, expected: list[str]
) -> None:
    assert shown(expression, zone, start, len(expected)) == expected


@pytest.mark.parametrize(
    ("zone", "expression", "start", "expected"),
    [
        (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", ["01 01:30 -0400", "02 01:30 -0500"]),
        (NEW_YORK, "*/30 0-2 * * *", "2026-11-01 00:40", ["01 01:00 -0400", "01 01:30 -0400", "01 02:00 -0500"]),
        ("Europe/Vienna", "15 2 * * *", "2026-10-24 12:00", ["25 02:15 +0200", "26 02:15 +0100"]),
        ("America/Santiago", "30 23 * * *", "2026-04-03 23:45", ["04 23:30 -0300", "05 23:30 -0400"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04 12:00", ["05 01:45 +1100", "06 01:45 +1030"]),
    ],
)
def test_a_repeated_time_ticks_once_the_first_time(zone: str, expression: str, start: str, expected: list[str]) -> None:
    assert shown(expression, zone, start, len(expected)) == expected


@pytest.mark.parametrize("inside", ["2026-11-01 05:59:59", "2026-11-01 06:00", "2026-11-01 06:10", "2026-11-01 06:30"])
def test_in_the_repeated_hour_a_time_that_has_been_does_not_come_again(inside: str) -> None:
    """01:30 in New York was at 05:30 UTC; 06:00 UTC is when the clocks show 01:00 for the second time."""
    assert read_schedule("30 1 * * *", NEW_YORK).after(ms(inside)) == ms("2026-11-02 01:30", NEW_YORK)


@pytest.mark.parametrize(
    ("zone", "expression", "start", "expected"),
    [
        (NEW_YORK, "30 * * * *", "2026-03-08 00:50", ["08 01:30 -0500", "08 03:30 -0400"]),
        (NEW_YORK, "30 0-23 * * *", "2026-11-01 00:50", ["01 01:30 -0400", "01 01:30 -0500", "01 02:30 -0500"]),
        (LORD_HOWE, "15 * * * *", "2026-10-04 00:50", ["04 01:15 +1030", "04 03:15 +1100"]),
        (LORD_HOWE, "45 * * * *", "2026-04-05 00:50", ["05 01:45 +1100", "05 01:45 +1030", "05 02:45 +1030"]),
        ("America/Santiago", "30 * 4 4 *", "2026-04-04 22:50", ["04 23:30 -0300", "04 23:30 -0400", "04 00:30 -0400"]),
    ],
)
def test_an_entry_of_every_hour_ticks_whenever_the_clocks_show_its_minute(
    zone: str, expression: str, start: str, expected: list[str]
) -> None:
    assert shown(expression, zone, start, len(expected)) == expected


@pytest.mark.parametrize("change", ["2026-03-08 05:00", "2026-11-01 03:00"])
def test_an_entry_of_every_hour_is_never_longer_away_than_its_step(change: str) -> None:
    found = ticks(read_schedule("*/10 * * * *", NEW_YORK), ms(change), 40)

    assert {later - tick for tick, later in pairwise(found)} == {600_000}


def _minutes(zone: ZoneInfo, start: datetime, days: int) -> Iterator[tuple[int, datetime]]:
    for n in range(days * 24 * 60):
        moment = start + timedelta(minutes=n)
        yield round(moment.timestamp() * 1000), moment.astimezone(zone).replace(tzinfo=None)


@settings(max_examples=40)
@given(
    st.sampled_from([NEW_YORK, LORD_HOWE, "Europe/London", "America/Santiago", "Africa/Casablanca", "Asia/Kathmandu"]),
    st.sampled_from([(3, 7, 12), (3, 28, 12), (4, 4, 0), (9, 5, 12), (10, 3, 0), (10, 24, 12), (10, 31, 12)]),
    st.sets(st.integers(0, 59), min_size=1, max_size=4),
    st.sets(st.integers(0, 23), min_size=1, max_size=6) | st.just(set(range(24))),
)
def test_ticks_are_those_that_a_look_at_the_clocks_each_minute_finds(
    zone: str, day: tuple[int, int, int], minutes: set[int], hours: set[int]
) -> None:
    """The rule, spelled out: walk through two days by the minute and see what the clocks show."""
    start = datetime(2026, *day, tzinfo=timezone.utc)
    every_hour = len(hours) == 24
    expected: list[int] = []
    before, seen = None, set[datetime]()
    for moment, wall in _minutes(ZoneInfo(zone), start - timedelta(hours=3), 2):
        skipped = [] if before is None else list(_between(before, wall))
        matching = [at for at in (*skipped, wall) if at.minute in minutes and at.hour in hours]
        matching = [at for at in matching if (at == wall if every_hour else at not in seen)]
        if matching and moment > start.timestamp() * 1000:
            expected.append(moment)
        before = wall
        seen.add(wall)

    expression = crontab(minute=sorted(minutes), hour="*" if every_hour else sorted(hours)).expression

    assert ticks(Cron(expression, zone), start.timestamp() * 1000, len(expected)) == expected


def _between(before: datetime, wall: datetime) -> Iterator[datetime]:
    """The minutes that clocks skipped which showed one and then the other."""
    at = before + timedelta(minutes=1)
    while at < wall:
        yield at
        at += timedelta(minutes=1)


# -- intervals --------------------------------------------------------------------------------------------


def test_an_interval_counts_from_the_epoch_wherever_it_is_asked() -> None:
    day = every(timedelta(days=1))

    assert day.after(ms("2026-05-05 13:00")) == ms("2026-05-06 00:00")
    assert day.after(ms("2026-05-06 00:00")) == ms("2026-05-07 00:00")
    assert every(90).after(0) == 90_000
    assert every(1.5).after(1499.9) == 1500


@given(st.integers(1000, 10**10), st.floats(0, 4e12))
def test_the_next_tick_of_an_interval_is_the_first_multiple_after_a_moment(interval: int, moment: float) -> None:
    tick = Every(interval).after(moment)

    assert tick % interval == 0
    assert tick - interval <= moment < tick


@pytest.mark.parametrize("interval", [1, 1.5, 30, 60, 90, 3600, 86400, 7 * 86400, 0.001 + 1])
def test_an_interval_is_written_so_that_it_can_be_read_again(interval: float) -> None:
    assert read_schedule(str(every(interval))) == every(interval)


# -- what can be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        (crontab(), "* * * * *"),
        (crontab(minute=0, hour="*/3"), "0 */3 * * *"),
        (crontab(0, 0, day_of_week="monday-friday"), "0 0 * * mon-fri"),
        (crontab(0, 0, day_of_month=[1, 15], month_of_year="january,jul"), "0 0 1,15 jan,jul *"),
        (crontab(hour="8, 20"), "* 8,20 * * *"),
        (crontab(0, 0, day_of_week="mon", day_of_month="*/2"), "0 0 */2 * mon"),
        ("@daily", "0 0 * * *"),
        (" @Hourly ", "0 * * * *"),
        ("*/5  9-17 * * mon-fri", "*/5 9-17 * * mon-fri"),
    ],
)
def test_a_schedule_is_a_cron_expression_however_it_is_written(given: Any, expression: str) -> None:
    assert read_schedule(given, "Europe/Vienna") == Cron(expression, "Europe/Vienna")


def test_days_of_both_kinds_in_a_cron_string_mean_either() -> None:
    found = ticks(read_schedule("0 0 13 * fri"), ms("2026-11-01 00:00"), 4)

    assert found == [ms(f"2026-11-{day:02} 00:00") for day in (6, 13, 20, 27)]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("0 0 31 2 *", "never comes"),
        ("0 0 30 feb *", "never comes"),
        ("60 * * * *", "bad minute"),
        ("* * * *", "has 4 fields"),
        ("* * * * * *", "for seconds use every"),
        ("", "has 0 fields"),
        ("@reboot", "use @yearly"),
        ("a b c d e", "bad minute"),
        ("22-5 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("every 0s", "from 1 to"),
        ("every fortnight", "has 2 fields"),
        (5, "is a cron string"),
        (None, "is a cron string"),
        (timedelta(hours=1), "is a cron string"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(given: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_schedule(given)


@pytest.mark.parametrize("interval", [0, -1, 0.5, float("nan"), float("inf"), True, "1", None, timedelta(days=400)])
def test_what_is_no_interval_is_refused(interval: Any) -> None:
    with pytest.raises(ConfigError, match="an interval must be"):
        every(interval)


def test_days_of_both_kinds_in_a_crontab_are_refused_since_celery_and_cron_differ() -> None:
    with pytest.raises(ConfigError, match="mon#1"):
        crontab(0, 0, day_of_week="mon", day_of_month="1-7")


@pytest.mark.parametrize("zone", ["Mars/Base", "", "Europe", "../etc/passwd", "a\0b", "x" * 500, 5, "\udc80"])
def test_an_unknown_zone_is_refused(zone: Any) -> None:
    with pytest.raises(ConfigError, match="unknown time zone"):
        read_schedule("@daily", zone)


def test_an_interval_has_no_zone() -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        read_schedule(every(5), "Europe/Vienna")
