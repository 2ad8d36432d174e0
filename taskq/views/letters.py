"""Dead letters as the server keeps them, page by page, so that a hundred thousand take no more memory than a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from taskq.broker import call
from taskq.broker.commands import looking
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import DecodeError
from taskq.message.details import read_error_detail
from taskq.message.envelope import Envelope, decode
from taskq.message.head import decode_head
from taskq.message.ids import id_from_text, id_to_text
from taskq.views.names import Known, known_names, unknown

#: Dead letters read in one call; each may have a megabyte.
_PAGE = 100
#: The header that keeps what a message died of before it was replayed, the latest last.
DEATHS = "deaths"
#: Why a message can be a dead letter, without what may follow a colon.
REASONS = (
    *("failed", "crashed", "abandoned", "bad-arguments", "unknown-task", "undecodable", "discarded", "unreadable"),
)


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter as the server keeps it; ``died`` is in seconds since the epoch, ``value`` None if it is gone.

    ``partitions`` are those of its app, ``keys`` those of the partition it is in.
    """

    partitions: Topology
    keys: Keys
    queue: str
    id: bytes
    died: float
    value: bytes | None
    raw_reason: bytes

    @property
    def app(self) -> str:
        """The app it is of."""
        return self.keys.app

    @cached_property
    def envelope(self) -> Envelope | None:
        """The message, or None if it cannot be decoded."""
        try:
            return decode(self.value or b"")
        except DecodeError:
            return None

    @cached_property
    def task(self) -> str:
        """The task's name; ``?`` if there is no readable head."""
        try:
            return decode_head(self.value or b"")[0]
        except DecodeError:
            return "?"

    @property
    def text_id(self) -> str:
        """The id as users see it."""
        return id_to_text(self.id)

    @property
    def reason(self) -> str:
        """Why it was given up, in a word; with ``discarded`` also by what."""
        return self.raw_reason.partition(b"\n")[0].decode("ascii", "backslashreplace")

    @cached_property
    def detail(self) -> dict[str, Any]:
        """What is known of the error: type, message, traceback, and more."""
        return read_error_detail(self.raw_reason.partition(b"\n")[2])

    @property
    def error(self) -> str:
        """The error in a line."""
        kind, message = str(self.detail["type"]), str(self.detail["message"])
        return f"{kind}: {message}" if kind and kind != self.reason else message

    @property
    def deaths(self) -> list[tuple[int, str, str]]:
        """What it died of before it was replayed: when (ms since the epoch), why, and of which error."""
        kept = self.envelope.headers.get(DEATHS) if self.envelope is not None else None
        whole = (one for one in kept if isinstance(one, list) and len(one) == 3) if isinstance(kept, list) else ()
        return [(when, str(why), str(error)) for when, why, error in whole if isinstance(when, int)]

    def has_expired(self, now: float) -> bool:
        """Say whether a worker would discard it; ``now`` is in seconds since the epoch."""
        return self.envelope is not None and self.envelope.expires is not None and self.envelope.expires <= now * 1000


@dataclass(frozen=True)
class Filters:
    """Which dead letters are meant; ``older`` is in seconds."""

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
    """The dead letters of some apps.

    Attributes:
        now: The server's time when it was opened, in seconds since the epoch.
    """

    def __init__(self, apps: Sequence[Topology], filters: Filters, now: float) -> None:
        """Look at those that ``filters`` let through."""
        self.apps = apps
        self.filters = filters
        self.now = now
        self._seen: set[tuple[str, str]] = set()  # task and reason of those that were read
        self._begin()

    def _begin(self) -> None:
        self._left: list[tuple[Topology, Keys, str]] | None = None  # queues that are to be gone through
        self._start = 0
        self._until: float | None = None

    def next_page(self) -> Protocol[list[DeadLetter] | None]:
        """Go on through all, oldest first, queue by queue; answers None at the end, after which it begins anew.

        Only those that were there when a queue was begun are met, so a message that dies again after its replay is
        not replayed for ever.
        """
        if self._left is None:
            self._left = []
            for app in self.apps:
                for keys in app.all:
                    self._left += [(app, keys, queue) for queue in (yield from self._queues(keys))]
        while self._left:
            app, keys, queue = self._left[0]
            if self._until is None:
                self._until = yield from self._newest(keys, queue)
            found = yield looking.dead_ids(keys, queue, self._start, self._start + _PAGE - 1)
            ids = [(raw_id, died) for raw_id, died in found if died <= self._until]
            if ids:
                self._start += len(ids)
                letters = yield from self._read(app, keys, queue, ids)
                return [one for one in letters if self.filters.match(one, self.now)]
            self._left.pop(0)
            self._start, self._until = 0, None
        self._begin()
        return None

    def taken(self, count: int) -> None:
        """Take note that so many of the last page are gone; without a page nothing."""
        self._start -= count if self._left else 0

    def find(self, text_id: str) -> Protocol[DeadLetter | None]:
        """Find the dead letter of that id, in whichever app; None if there is none that the filters let through.

        Raises:
            ValueError: Not an id.
        """
        raw_id = id_from_text(text_id)
        for app, keys in [(one, keys) for one in self.apps for keys in one.all]:
            [value] = yield call.hash_values(keys, "messages", [raw_id])
            [reason] = yield call.hash_values(keys, "reasons", [raw_id])
            if reason is None:
                continue
            try:
                queues = [decode_head(value or b"")[1]]
            except DecodeError:
                queues = yield from self._queues(keys)
            for queue in queues:
                died: float | None = yield looking.dead_time(keys, queue, raw_id)
                if died is not None:
                    letter = DeadLetter(app, keys, queue, raw_id, died, value, reason)
                    self._seen.add((letter.task, letter.reason))
                    return letter if self.filters.match(letter, self.now) else None
        return None

    def check_filters(self, where: str) -> Protocol[None]:
        """Refuse filters by a name that nobody has ever used; to be asked when they let nothing through.

        Raises:
            ConfigError: One of them; the text has the nearest known ones.
        """
        filters, known = self.filters, (yield from known_names(self.apps))
        tasks = {task for task, _ in self._seen}
        Known(known.tasks | tasks, known.queues).check(where, task=filters.task, queue=filters.queue)
        reasons = {reason for _, reason in self._seen} | {reason.partition(":")[0] for _, reason in self._seen}
        if filters.reason is not None and filters.reason not in {*REASONS, *reasons}:
            raise unknown("reason", filters.reason, where, REASONS)

    def _queues(self, keys: Keys) -> Protocol[list[str]]:
        surveys = yield looking.survey(keys)
        return sorted(name for name, survey in surveys.items() if survey.dead and self.filters.queue in (None, name))

    def _newest(self, keys: Keys, queue: str) -> Protocol[float]:
        newest = yield looking.dead_ids(keys, queue, -1, -1)
        until: float = newest[0][1] if newest else 0.0
        return until if self.filters.older is None else min(until, self.now - self.filters.older)

    def _read(
        self, app: Topology, keys: Keys, queue: str, ids: list[tuple[bytes, float]]
    ) -> Protocol[list[DeadLetter]]:
        fields = [raw_id for raw_id, _ in ids]
        values = yield call.hash_values(keys, "messages", fields)
        reasons = yield call.hash_values(keys, "reasons", fields)
        letters = [
            DeadLetter(app, keys, queue, raw_id, died, value, reason or b"?")
            for (raw_id, died), value, reason in zip(ids, values, reasons, strict=True)
        ]
        self._seen |= {(letter.task, letter.reason) for letter in letters}
        return letters
