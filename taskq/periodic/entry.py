"""Periodic entries: what a schedule sends, and what becomes of its ticks. Pure: time comes from the server.

An entry is stored on the server as its revision (16 hexadecimal digits of a hash) and a msgpack map. It holds all that
a message needs, so any process that sends ticks, ``taskq reaper`` too, can send it without the app's code.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

import msgpack

from taskq.broker.ticks import DueTick, Step
from taskq.config import check_name
from taskq.errors import ConfigError, DecodeError
from taskq.message.envelope import decode, encode_envelope
from taskq.message.head import decode_head, stamped
from taskq.message.letters import OPTION_WARN
from taskq.message.stored import unstamped
from taskq.periodic.schedule import Cron, Every, every, seconds_of

log = logging.getLogger("taskq.periodic")

CatchUp = Literal["skip", "last", "all"]
Overlap = Literal["allow", "skip"]

_VERSION = 1
#: Milliseconds a tick may be late before it counts as missed: if the process that waits for it dies, another takes over
#: sooner.
_ON_TIME = 10_000
_HOUR = 3_600_000
#: Milliseconds for which an entry that could not be read is left alone.
_UNREAD_FOR = 60_000
#: Longest name: the ids of an entry's messages contain it.
_NAME_MAX = 170


@dataclass(frozen=True, slots=True)
class Entry:
    """One periodic entry.

    Attributes:
        name: Its name in the app.
        schedule: When it ticks.
        head: The head of its messages, as a producer sends it.
        headers: Their headers.
        body: Their arguments.
        options: For the enqueue script: when they expire, and how long their queue may be.
        catch_up: What happens to missed ticks.
        window: How old a missed tick may be and still be sent, in ms.
        overlap: Whether a tick is sent while the last message is still alive.
        jitter: Ticks are delayed by up to this many ms, but never to the time of the next one.
    """

    name: str
    schedule: Every | Cron
    head: bytes
    headers: Mapping[str, Any]
    body: bytes
    options: bytes = b""
    catch_up: CatchUp = "last"
    window: int = 86_400_000
    overlap: Overlap = "allow"
    jitter: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        schedule: Every | Cron,
        message: tuple[bytes, bytes, bytes],
        *,
        catch_up: CatchUp = "last",
        window: float | timedelta = 86400.0,
        overlap: Overlap = "allow",
        jitter: float | timedelta = 0.0,
    ) -> Entry:
        """Make an entry that sends copies of a prepared message, each under an id of its own; durations in seconds.

        Raises:
            ConfigError: A name or an option that cannot work.
        """
        if len(check_name("periodic entry", name)) > _NAME_MAX:
            raise ConfigError(f"periodic entry {name!r:.80}: a name may have {_NAME_MAX} characters, not {len(name)}")
        for option, given, known in (
            ("catch_up", catch_up, get_args(CatchUp)),
            ("overlap", overlap, get_args(Overlap)),
        ):
            if given not in known:
                raise ConfigError(f"{option} of {name} must be one of {', '.join(known)}, not {given!r}")
        jitter_ms = round(1000 * seconds_of(f"jitter of {name}", jitter))
        if isinstance(schedule, Every) and jitter_ms >= schedule.ms:
            raise ConfigError(f"jitter of {name} must be shorter than its interval, {schedule}")
        _, value, options = message
        if not re.fullmatch(rb"(x\d+)?(m\d+)?w?", options):
            raise ConfigError(f"periodic entry {name}: expires is a number of seconds after each tick, no moment")
        sent = decode(stamped(value))
        return cls(
            name, schedule, unstamped(sent.head), sent.headers, sent.body, options.removesuffix(OPTION_WARN),
            catch_up, round(1000 * seconds_of(f"window of {name}", window)), overlap, jitter_ms,
        )  # fmt: skip

    # -- as it is stored ---------------------------------------------------------------------------------

    @property
    def stored(self) -> bytes:
        """The entry as the server keeps it: its revision and a msgpack map."""
        when = self.schedule
        packed: bytes = msgpack.packb(
            {
                "v": _VERSION,
                "when": when.ms if isinstance(when, Every) else [when.expression, when.zone],
                "call": [self.head, dict(self.headers), self.body, self.options],
                "catch_up": self.catch_up,
                "window": self.window,
                "overlap": self.overlap,
                "jitter": self.jitter,
            }
        )
        return hashlib.blake2b(packed, digest_size=8).hexdigest().encode() + packed

    @classmethod
    def read(cls, name: str, stored: bytes) -> Entry:
        """Read what `stored` wrote.

        Raises:
            DecodeError: Not an entry of a version that this taskq knows.
        """
        try:
            fields = msgpack.unpackb(stored[16:])
            if fields["v"] != _VERSION:
                raise DecodeError(f"an entry of version {fields['v']}, this taskq reads {_VERSION}")
            when = fields["when"]
            schedule = every(when / 1000) if type(when) is int else Cron(*when)
            rest = [fields[option] for option in ("catch_up", "window", "overlap", "jitter")]
            fit = rest[0] in get_args(CatchUp) and type(rest[1]) is type(rest[3]) is int
            if not fit or (type(when) is not int and [type(part) for part in when] != [str, str]):
                raise DecodeError("an entry whose options have the wrong types")
            entry = cls(name, schedule, *fields["call"], *rest)
            decode(stamped(entry.message(0)[1]))
            return entry
        except DecodeError:
            raise
        except Exception as error:  # bytes of whatever kind
            raise DecodeError(f"not a periodic entry: {type(error).__name__}: {error}"[:300]) from None

    @property
    def task(self) -> str:
        """The name of its task."""
        return decode_head(stamped(self.head))[0]

    @property
    def queue(self) -> str:
        """The queue its messages go to."""
        return decode_head(stamped(self.head))[1]

    # -- ticks -------------------------------------------------------------------------------------------

    def message(self, tick: int, mark: str = "") -> tuple[bytes, bytes, bytes]:
        """Return the message of a tick. Its id names the tick, so sending it again sends the same message."""
        raw_id = f"cron:{self.name}:{mark}{tick}".encode()
        # w: to be told if no worker serves the queue
        return (
            raw_id,
            self.head + encode_envelope(raw_id, {**self.headers, "eta": tick}, self.body),
            self.options + OPTION_WARN,
        )

    def moment(self, tick: int) -> int:
        """Return when to send a tick: its time plus its share of the jitter, which is the same on every machine.

        That is before the time of the next tick: however long the jitter, no tick overtakes another or counts as
        missed.
        """
        if not self.jitter:
            return tick
        follows = self.schedule.after(tick)
        most = self.jitter if follows is None else min(self.jitter, follows - tick)
        share = hashlib.blake2b(b"%s %d" % (self.name.encode(), tick), digest_size=8).digest()
        return tick + (int.from_bytes(share, "big") * most >> 64)

    def step(self, due: DueTick, now: float) -> Step:
        """Say what becomes of a due tick, and which is the next.

        Args:
            due: The tick as the server knows it; ``tick`` None stands for an entry that is new or was paused.
            now: Server time in ms.

        Raises:
            ConfigError: This machine cannot read its schedule.
        """
        send, follows, dropped = self._fate(due.tick, now)
        return Step(
            due,
            self.message(send) if send is not None else None,
            send,
            None if follows is None else (follows, self.moment(follows)),
            alone=self.overlap == "skip",
            dropped=dropped,
        )

    def _fate(self, tick: int | None, now: float) -> tuple[int | None, int | None, bool]:
        """Return the tick to send now, the one to wait for after it, and whether ticks were left out."""
        after = self.schedule.after
        if tick is None:
            return None, after(now), False
        window = _ON_TIME if self.catch_up == "skip" else max(self.window, _ON_TIME)
        late = now - self.moment(tick)
        if late <= _ON_TIME or (self.catch_up == "all" and late <= window):
            return tick, after(tick), False
        if self.catch_up == "all":
            return None, self._first(now - window), True
        newest, follows = self._newest_due(tick, now)
        good = now - self.moment(newest) <= window
        return newest if good else None, follows, newest != tick or not good

    def _first(self, since: float) -> int | None:
        """Return the first tick that is to be sent at ``since`` or later."""
        tick = self.schedule.after(since - 1 - self.jitter)
        while tick is not None and self.moment(tick) < since:
            tick = self.schedule.after(tick)
        return tick

    def _newest_due(self, tick: int, now: float) -> tuple[int, int | None]:
        """Return the newest tick that is due, ``tick`` being one, and the first that is not."""
        back = _HOUR + self.jitter
        while True:  # look back further and further: an entry may have many ticks an hour, or few at all
            newest, follows = None, self.schedule.after(max(tick - 1, now - back))
            while follows is not None and self.moment(follows) <= now:
                newest, follows = follows, self.schedule.after(follows)
            if newest is not None:
                return newest, follows
            back *= 24


def code_revision(entries: Mapping[str, bytes], tasks: Mapping[str, bytes]) -> str:
    """Return what tells one deployment's code from another's: a hash of its entries and its tasks' signatures.

    Args:
        entries: Each as stored, by name.
        tasks: The fingerprint of each task's signature, by name.
    """
    packed: bytes = msgpack.packb([sorted(entries.items()), sorted(tasks.items())])
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


class Ticker:
    """Turns due ticks into steps; remembers the entries it has read, and for a while those it could not read."""

    def __init__(self) -> None:
        """Begin without any entry."""
        self._read: dict[tuple[str, bytes], Entry] = {}
        self._unread: dict[tuple[str, bytes], tuple[float, str]] = {}  # until when (ms), and why

    def steps(self, ticks: list[DueTick], now: float) -> list[Step]:
        """Return the steps to take; none for an entry that this machine cannot read: another may, or this one later."""
        return [step for due in ticks if (step := self._step(due, now)) is not None]

    def _step(self, due: DueTick, now: float) -> Step | None:
        key = due.name, due.revision
        until, why = self._unread.get(key, (0.0, ""))
        if now < until <= now + _UNREAD_FOR:
            return None
        try:
            if key not in self._read:
                if len(self._read) >= 10_000:
                    self._read.clear()
                self._read[key] = Entry.read(due.name, due.stored)
            step = self._read[key].step(due, now)
        except Exception as error:  # stored bytes may be anything, and the thread that asks also keeps leases
            if str(error) != why:
                log.error("periodic entry %s cannot be read here, tried again every minute: %s", due.name, error)
            if len(self._unread) >= 10_000:
                self._unread.clear()
            self._unread[key] = now + _UNREAD_FOR, str(error)
            return None
        self._unread.pop(key, None)
        return step
