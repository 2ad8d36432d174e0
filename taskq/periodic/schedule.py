"""When something ticks: every so many seconds, or as a cron expression says in a time zone. Pure: no clock is read.

The rule for zones that put their clocks forward or back:

* An entry of certain hours (``30 2 * * *``) ticks once for each time it names. If the clocks skip a time, it ticks at
the next minute that exists; times skipped together tick together, once. If the clocks show a time twice, it ticks the
first time.
* An entry of every hour (``*/5 * * * *``) ticks at each matching minute that the clocks show: twice in a repeated hour,
never in a skipped one.

Intervals know nothing of zones: they count from 1970-01-01 00:00 UTC, so every machine means the same moments, and
neither restarts nor late ticks shift them.

Source: the fields are those of cron(5), read by cronsim, which also knows ``L``, ``LW``, ``5L`` and ``mon#1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, NamedTuple

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from cronsim import CronSim

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SECOND, _MINUTE, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
#: Shortest and longest interval, in seconds: below, a queue and a loop do better; above, cron does.
_SHORTEST, _LONGEST = 1.0, 366 * 86400.0


def seconds_of(what: str, value: object, low: float = 0.0, high: float = _LONGEST) -> float:
    """Return a duration, given as a number of seconds or a timedelta; raises `ConfigError` outside its range."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not low <= seconds <= high:
        limits = f"from {low:g} to {high:.0f}"
        raise ConfigError(f"{what} must be a timedelta or a number of seconds {limits}, not {value!r}")
    return float(seconds)


class Every(NamedTuple):
    """An interval in milliseconds. Made by `every`."""

    ms: int

    def after(self, moment: float) -> int:
        """Return the first tick after a moment; both in ms since the epoch."""
        return (int(moment // self.ms) + 1) * self.ms

    def __str__(self) -> str:
        """Write it as `read_schedule` reads it."""
        whole = [unit for unit, size in _UNITS.items() if self.ms % (size * 1000) == 0]
        unit = whole[-1] if whole else "s"
        return f"every {self.ms / 1000 / _UNITS[unit]:.12g}{unit}"


def every(interval: float | timedelta) -> Every:
    """Say that something ticks every so many seconds, from 1 on, or every timedelta.

    Ticks are counted from 1970-01-01 00:00 UTC: ``every(3600)`` is each full hour, whenever a worker starts.

    Raises:
        ConfigError: An interval below a second or above a year.
    """
    return Every(round(seconds_of("an interval", interval, _SHORTEST) * 1000))


class Cron(NamedTuple):
    """A cron expression of five fields, in a time zone. Made by `crontab` or from a string."""

    expression: str
    zone: str = "UTC"

    def after(self, moment: float) -> int | None:
        """Return the first tick after a moment, both in ms since the epoch; None if there is none in 50 years.

        Raises:
            ConfigError: An expression or a zone that this machine cannot read.
        """
        zone = zone_of(self.zone)
        last = datetime.fromtimestamp(moment // 1000, timezone.utc)
        every_hour = len(_simulation(self.expression, last).hours) == 24
        tick = self._next_shown(zone, last) if every_hour else self._next_named(zone, last)
        return None if tick is None else round(tick.timestamp() * 1000)

    def _next_named(self, zone: tzinfo, last: datetime) -> datetime | None:
        """Return the next moment of an entry of certain hours, by the rule above; in UTC."""
        for wall in _simulation(self.expression, last.astimezone(zone)):
            tick = _first_shown(wall, zone)
            if tick > last:  # after a repeated hour began, its times have been
                return tick
        return None

    def _next_shown(self, zone: tzinfo, last: datetime) -> datetime | None:
        """Return the next moment at which the clocks show a matching minute; in UTC."""
        while True:
            start = last + _SECOND
            offset = _offset(zone, start)
            wall = next(_simulation(self.expression, last + offset), None)
            if wall is None:
                return None
            tick = (wall - offset).replace(tzinfo=timezone.utc)
            change = _first_change(zone, start, tick)
            if change is None:
                return tick
            last = change - _SECOND  # look again, by what the clocks show from then on

    def __str__(self) -> str:
        """Write the expression."""
        return self.expression


def crontab(
    minute: str | int | Iterable[int] = "*",
    hour: str | int | Iterable[int] = "*",
    day_of_week: str | int | Iterable[int] = "*",
    day_of_month: str | int | Iterable[int] = "*",
    month_of_year: str | int | Iterable[int] = "*",
) -> Cron:
    """Say when something ticks, by Celery's names: ``crontab(minute=0, hour="*/3")``.

    Each is a number, several of them, or a cron field. Not given means each, as in Celery: ``crontab(hour=3)`` ticks
    sixty times.

    Raises:
        ConfigError: A field that cannot be read, or a date that never comes; or both ``day_of_week`` and
            ``day_of_month``: Celery means days that match both, cron those that match either. Write ``mon#1`` for the
            first Monday of a month, or a cron string.
    """
    fields = [_field(value) for value in (minute, hour, day_of_month, month_of_year, day_of_week)]
    if not (fields[2].startswith("*") or fields[4].startswith("*")):
        raise ConfigError(
            "crontab(day_of_week=, day_of_month=): in Celery a day must match both, in cron either; write "
            "day_of_week='mon#1' for the first Monday of a month, or a cron string, which means either"
        )
    return _checked(Cron(" ".join(fields)))


def _field(value: str | int | Iterable[int]) -> str:
    if isinstance(value, str):
        return re.sub(r"[A-Za-z]{4,}", lambda name: name[0][:3], "".join(value.split()))  # monday
    return str(value) if isinstance(value, int) else ",".join(str(n) for n in value)


def read_schedule(schedule: Every | Cron | str, zone: str | None = None, else_zone: str = "UTC") -> Every | Cron:
    """Return what a schedule means: ``"*/5 9-17 * * mon-fri"``, ``"@daily"``, ``"every 30s"``, `every`, `crontab`.

    Args:
        schedule: One of these.
        zone: Name of the time zone of a cron expression, such as ``Europe/Vienna``.
        else_zone: That of one for which ``zone`` is not given.

    Raises:
        ConfigError: Not readable, a date that never comes, an unknown zone, an interval with a zone.
    """
    if isinstance(schedule, str):
        schedule = _from_text(schedule)
    if isinstance(schedule, Cron):
        return _checked(schedule._replace(zone=else_zone if zone is None else zone))
    if not isinstance(schedule, Every):
        raise ConfigError(f"a schedule is a cron string, crontab(...) or every(...), not {schedule!r}")
    if zone is not None:
        raise ConfigError(f"tz={zone!r}: an interval has no time zone, it counts from 1970-01-01 00:00 UTC")
    return schedule


def _from_text(text: str) -> Every | Cron:
    if interval := re.fullmatch(r"\s*every\s+(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text):
        return every(float(interval[1]) * _UNITS[interval[2] or "s"])
    fields = text.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0].lower() not in _NICKNAMES:
            raise ConfigError(f"cron has no {fields[0]!r:.80} here: use {', '.join(_NICKNAMES)}")
        fields = _NICKNAMES[fields[0].lower()].split()
    if len(fields) != 5:
        raise ConfigError(
            f"cron expression {text!r:.80} has {len(fields)} fields, not 5: minute, hour, day of month, month, "
            "day of week; for seconds use every(...)"
        )
    return Cron(" ".join(fields))


def _checked(cron: Cron) -> Cron:
    """Return an expression that can be read and that ticks some day."""
    if cron.after(0) is None:
        raise ConfigError(f"cron expression {cron.expression!r:.80} never comes true")
    return cron


def zone_of(name: str) -> tzinfo:
    """Return the time zone of that name; raises `ConfigError` if this machine does not know it."""
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo  # only for those who use it: it costs 5 ms

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, TypeError, OSError):  # unknown, no key at all, not a string, a folder
        raise ConfigError(
            f"unknown time zone {name!r:.80}: use a name such as 'Europe/Vienna'; if it is one, this machine has no "
            "time zone data: pip install tzdata"
        ) from None


# -- clocks ----------------------------------------------------------------------------------------------


def _simulation(expression: str, after: datetime) -> CronSim:
    """Return the times after one, as the clocks of a zone without changes would show them."""
    from cronsim import CronSim, CronSimError

    try:
        return CronSim(expression, after.replace(tzinfo=None, fold=0))
    except CronSimError as error:
        why = f"{str(error).lower()}: not readable, out of range, or a date that never comes"
        raise ConfigError(f"cron expression {expression!r:.80}: {why}") from None


def _first_shown(wall: datetime, zone: tzinfo) -> datetime:
    """Return when the clocks first show a time, or, if they skip it, the next minute that they do show; in UTC."""
    while True:
        moment = wall.replace(tzinfo=zone).astimezone(timezone.utc)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += _MINUTE


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _first_change(zone: tzinfo, start: datetime, end: datetime) -> datetime | None:
    """Return the first second, after ``start`` and up to ``end``, at which the zone has another offset; None: never."""
    offset = _offset(zone, start)
    while start < end:
        later = min(start + _DAY, end)  # no zone changes its clocks twice within a day
        if _offset(zone, later) == offset:
            start = later
            continue
        while later - start > _SECOND:
            middle = start + (later - start) // 2
            middle = middle.replace(microsecond=0)
            start, later = (middle, later) if _offset(zone, middle) == offset else (start, middle)
        return later
    return None
