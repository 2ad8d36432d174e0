"""What ``taskq dead`` reads of dead letters, and how it shows them.

Everything goes page by page, so a hundred thousand of them are no more work for the server at once than a few. What a
message's maker wrote is shown, never trusted: what cannot be decoded is said to be so, control characters are replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from taskq.cli.common import apps_at, keys_of, raw_id_of
from taskq.cli.tables import Column, age, moment, one_line, printable, shortened
from taskq.errors import DecodeError
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.pool import Broker
    from taskq.message.envelope import Envelope

COLUMNS = (
    Column("ID", whole=True),
    Column("APP", spare=True),
    Column("QUEUE", spare=True, like="TASK"),
    Column("TASK"),
    Column("REASON"),
    Column("AGE", number=True),
    Column("ERROR"),
)
#: Dead letters read in one call; each may have a megabyte.
_PAGE = 100
#: Headers that count what happened to a message: a replayed one begins anew.
_HISTORY = ("retries", "of", "first", "idle", "slept", "error", "unknown")
#: The header that keeps what a message died of before it was replayed, the latest last; how many bytes of that are kept
#: (a worker reads a message that has become larger by 4096), and how many characters of an error.
_DEATHS, _DEATHS_MAX, _ERROR_MAX = "deaths", 2000, 200
#: Why a message can be a dead letter, without what may follow a colon.
REASONS = (
    *("failed", "crashed", "abandoned", "bad-arguments", "unknown-task", "undecodable", "discarded", "unreadable"),
)
#: Longest value shown, in characters; parts of an error's detail that have a place of their own.
_SHOWN_MAX, _SHOWN_APART = 4000, ("type", "message", "traceback", "retries")


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter as the server keeps it; ``died`` is in seconds since the epoch, ``value`` None if it is gone."""

    app: str
    queue: str
    id: bytes
    died: float
    value: bytes | None
    raw_reason: bytes

    @cached_property
    def envelope(self) -> Envelope | None:
        """The message, or None if it cannot be decoded."""
        from taskq.message.envelope import decode

        try:
            return decode(self.value or b"")
        except DecodeError:
            return None

    @cached_property
    def task(self) -> str:
        """The task's name; ``?`` if there is no readable head."""
        from taskq.message.envelope import decode_head

        try:
            return decode_head(self.value or b"")[0]
        except DecodeError:
            return "?"

    @property
    def text_id(self) -> str:
        """The id as users see it."""
        from taskq.message.envelope import id_to_text

        return id_to_text(self.id)

    @property
    def reason(self) -> str:
        """Why it was given up, in a word; with ``discarded`` also by what."""
        return self.raw_reason.partition(b"\n")[0].decode("ascii", "backslashreplace")

    @cached_property
    def detail(self) -> dict[str, Any]:
        """What is known of the error: type, message, traceback, and more."""
        from taskq.message.outcome import read_error_detail

        return read_error_detail(self.raw_reason.partition(b"\n")[2])

    @property
    def error(self) -> str:
        """The error in a line."""
        kind, message = str(self.detail["type"]), str(self.detail["message"])
        return f"{kind}: {message}" if kind and kind != self.reason else message

    def has_expired(self, now: float) -> bool:
        """Say whether a worker would discard it; ``now`` is in seconds since the epoch."""
        return self.envelope is not None and self.envelope.expires is not None and self.envelope.expires <= now * 1000

    @property
    def fresh_value(self) -> bytes:
        """The value to replay it with, its history forgotten; empty to leave it as it is."""
        if self.envelope is None:
            return b""
        headers = {name: value for name, value in self.envelope.headers.items() if name not in _HISTORY}
        deaths = [*self.deaths, (int(self.died * 1000), self.reason, shortened(one_line(self.error), _ERROR_MAX))]
        while sum(20 + len(why.encode() + error.encode()) for _, why, error in deaths) > _DEATHS_MAX:
            del deaths[0]
        return self.envelope.with_headers({**headers, _DEATHS: deaths})

    @property
    def deaths(self) -> list[tuple[int, str, str]]:
        """What it died of before it was replayed: when (ms since the epoch), why, and of which error."""
        kept = self.envelope.headers.get(_DEATHS) if self.envelope is not None else None
        whole = (one for one in kept if isinstance(one, list) and len(one) == 3) if isinstance(kept, list) else ()
        return [(when, str(why), str(error)) for when, why, error in whole if isinstance(when, int)]


@dataclass(frozen=True)
class Filters:
    """Which dead letters are meant; ``older`` is in seconds."""

    names: tuple[str, ...] = ()
    queue: str | None = None
    task: str | None = None
    reason: str | None = None
    older: float | None = None

    @property
    def any(self) -> bool:
        """Whether anything is filtered at all."""
        return self != Filters()

    def match(self, letter: DeadLetter, now: float) -> bool:
        """Say whether a dead letter is meant; ``now`` is the server's time in seconds since the epoch."""
        reason = letter.reason
        return (
            self.queue in (None, letter.queue)
            and self.task in (None, letter.task)
            and (self.reason in (None, reason, reason.partition(":")[0]))
            and (self.older is None or now - letter.died >= self.older)
        )


class Graveyard:
    """The dead letters of the apps on a server."""

    def __init__(self, broker: Broker, filters: Filters) -> None:
        """Look at those that ``filters`` let through."""
        from taskq.broker.commands import looking

        self.broker = broker
        self.filters = filters
        self.apps = apps_at(broker, filters.names)
        self.now = broker.run(looking.server_time())
        self._seen: set[tuple[str, str]] = set()  # task and reason of those that were read

    def check_filters(self) -> None:
        """Refuse filters by a name that nobody has ever used; asked when they let nothing through.

        Raises:
            ConfigError: One of them; the text has the nearest known ones.
        """
        from taskq.cli.names import Known, unknown

        filters, where = self.filters, self.broker.where
        tasks = {task for task, _ in self._seen}
        known = Known.at(self.broker, map(keys_of, self.apps))
        Known(known.tasks | tasks, known.queues).check(where, task=filters.task, queue=filters.queue)
        reasons = {reason for _, reason in self._seen} | {reason.partition(":")[0] for _, reason in self._seen}
        if filters.reason is not None and filters.reason not in {*REASONS, *reasons}:
            raise unknown("reason", filters.reason, where, REASONS)

    def pages(self) -> Iterator[tuple[list[DeadLetter], Callable[[int], None]]]:
        """Go through all, oldest first, queue by queue.

        Only those that were there when a queue was begun are met, so a message that dies again after its replay is
        not replayed for ever.

        Yields:
            A page, and a function to be told how many of it were taken away.
        """
        for app in self.apps:
            for queue in self._queues(app):
                yield from self._pages_of(app, queue)

    def _queues(self, app: str) -> list[str]:
        from taskq.broker.commands import looking

        surveys = self.broker.run(looking.survey(keys_of(app)))
        return sorted(name for name, survey in surveys.items() if survey.dead and self.filters.queue in (None, name))

    def _pages_of(self, app: str, queue: str) -> Iterator[tuple[list[DeadLetter], Callable[[int], None]]]:
        from taskq.broker.commands import looking

        keys, start = keys_of(app), 0
        newest = self.broker.run(looking.dead_ids(keys, queue, -1, -1))
        until = newest[0][1] if newest else 0.0
        if self.filters.older is not None:
            until = min(until, self.now - self.filters.older)

        def taken(count: int) -> None:
            nonlocal start
            start -= count

        while True:
            ids = self.broker.run(looking.dead_ids(keys, queue, start, start + _PAGE - 1))
            ids = [(raw_id, died) for raw_id, died in ids if died <= until]
            if not ids:
                return
            start += len(ids)
            letters = self._read(app, queue, ids)
            self._seen |= {(letter.task, letter.reason) for letter in letters}
            yield [one for one in letters if self.filters.match(one, self.now)], taken

    def _read(self, app: str, queue: str, ids: list[tuple[bytes, float]]) -> list[DeadLetter]:
        from taskq.broker import call

        keys, fields = keys_of(app), [raw_id for raw_id, _ in ids]
        values = self.broker.run(call.hash_values(keys, "messages", fields))
        reasons = self.broker.run(call.hash_values(keys, "reasons", fields))
        return [
            DeadLetter(app, queue, raw_id, died, value, reason or b"?")
            for (raw_id, died), value, reason in zip(ids, values, reasons, strict=True)
        ]

    def find(self, text_id: str) -> DeadLetter | None:
        """Return the dead letter of that id, in whichever app; None if there is none that the filters let through."""
        from taskq.broker import call
        from taskq.broker.commands import looking
        from taskq.message.envelope import decode_head

        raw_id = raw_id_of(text_id)
        for app in self.apps:
            keys = keys_of(app)
            value = self.broker.run(call.hash_values(keys, "messages", [raw_id]))[0]
            reason = self.broker.run(call.hash_values(keys, "reasons", [raw_id]))[0]
            if reason is None:
                continue
            try:
                queues = [decode_head(value or b"")[1]]
            except DecodeError:
                queues = self._queues(app)
            for queue in queues:
                died = self.broker.run(looking.dead_time(keys, queue, raw_id))
                if died is not None:
                    letter = DeadLetter(app, queue, raw_id, died, value, reason)
                    self._seen.add((letter.task, letter.reason))
                    return letter if self.filters.match(letter, self.now) else None
        return None

    def batches(self, ids: tuple[str, ...], missing: list[str]) -> Iterator[tuple[list[DeadLetter], Any]]:
        """Go through those with the given ids, noting which are ``missing``; without ids through all."""
        if not ids:
            yield from self.pages()
        for text_id in dict.fromkeys(ids):
            letter = self.find(text_id)
            if letter is None:
                missing.append(text_id)
            else:
                yield [letter], lambda _count: None

    def replay(self, letter: DeadLetter) -> bool | None:
        """Put one back into its queue; answers whether it was still there, None if it is superseded unique work."""
        from taskq.broker.commands import steering

        return self.broker.run(steering.replay(keys_of(letter.app), letter.queue, letter.id, letter.fresh_value))

    def purge(self, letters: list[DeadLetter]) -> int:
        """Delete some of one queue; answers how many were still there."""
        from taskq.broker.commands import steering

        if not letters:
            return 0
        first = letters[0]
        return self.broker.run(steering.purge(keys_of(first.app), first.queue, [letter.id for letter in letters]))


# -- how they look ---------------------------------------------------------------------------------------


def row(letter: DeadLetter, now: float) -> tuple[str, ...]:
    """Write one as a row of `COLUMNS`; ``now`` is the server's time in seconds since the epoch."""
    cells = (letter.text_id, letter.app, letter.queue, letter.task, letter.reason)
    return (*(one_line(cell) for cell in cells), age(now - letter.died), one_line(letter.error))


def as_json_line(letter: DeadLetter, now: float) -> str:
    """Write one as a line of JSON."""
    return json.dumps(
        {
            "id": letter.text_id,
            "app": letter.app,
            "queue": letter.queue,
            "task": letter.task,
            "reason": letter.reason,
            "error": str(letter.detail["type"]),
            "message": str(letter.detail["message"]),
            "died_at": moment(letter.died),
            "age": round(max(0.0, now - letter.died), 3),
        },
        ensure_ascii=False,
    )


def describe(letter: DeadLetter, now: float) -> str:
    """Write all that is known of one."""
    rows = [
        ("id", letter.text_id),
        ("app", letter.app),
        ("queue", letter.queue),
        ("task", letter.task),
        ("reason", letter.reason),
        ("died", f"{moment(letter.died)}, {age(now - letter.died)} ago"),
        *_message_rows(letter, now),
        *(("died once", f"{moment(when / 1000)}, {why}: {error}") for when, why, error in letter.deaths),
        *((str(name), value) for name, value in letter.detail.items() if name not in _SHOWN_APART),
        ("error", letter.error),
    ]
    lines = [f"{name:<10}{printable(shortened(str(value), _SHOWN_MAX))}" for name, value in rows if value != ""]
    if traceback := str(letter.detail["traceback"]).rstrip():
        lines += ["", printable(traceback)]
    return "\n".join(lines)


def _message_rows(letter: DeadLetter, now: float) -> list[tuple[str, Any]]:
    """What the message itself says: when it was accepted, its retries, headers and arguments."""
    from taskq.message import codec

    if letter.value is None:
        return [("message", "(gone)")]
    envelope = letter.envelope
    if envelope is None:
        return [("message", f"(cannot be decoded) {count(len(letter.value), 'byte')}: {letter.value!r}")]
    headers = dict(envelope.headers)
    rows: list[tuple[str, Any]] = [("accepted", moment(envelope.accepted / 1000))]
    if envelope.expires is not None:
        rows.append(("expires", moment(envelope.expires / 1000)))
    rows.append(("retries", headers.pop("retries", 0)))
    headers.pop("sig", None)
    user = headers.pop("user", None)
    if user is not None:
        rows.append(("headers", _decoded(codec.unpack, user)))
    rows += [(str(name), value) for name, value in headers.items() if name not in (*_HISTORY, _DEATHS)]
    try:
        args, kwargs = codec.unpack_call(envelope.body)
        rows += [("args", repr(tuple(args))), ("kwargs", repr(kwargs))]
    except Exception:
        rows.append(("body", f"(cannot be decoded) {count(len(envelope.body), 'byte')}: {envelope.body!r}"))
    return rows


def _decoded(read: Callable[[bytes], Any], data: Any) -> str:
    try:
        return repr(read(data))
    except Exception:
        return f"(cannot be decoded) {data!r}"
