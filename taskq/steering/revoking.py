"""Revoking all there is of a task, of a queue, or with certain headers.

First the ids are walked in chunks, which is no instant: what is sent meanwhile may be met or not; what was there
before, and still is, will be. Then all are marked, a thousand in one step and the oldest first, so that none is begun
while they are revoked one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from taskq.broker import call
from taskq.broker.commands import auditing, steering
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol, persist
from taskq.config import check_name
from taskq.errors import ConfigError, DecodeError
from taskq.message import codec
from taskq.message.envelope import decode, decode_head

#: Messages read in one call, each of which may have a megabyte; ids marked in one.
_CHUNK, _MARKED = 100, 1000


@dataclass(frozen=True, slots=True)
class Which:
    """Which messages are meant: those to which all of it applies.

    Attributes:
        headers: Of those that the call was given, by name.
    """

    task: str | None = None
    queue: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what names nothing, which would be everything."""
        if self.task is None and self.queue is None and not self.headers:
            raise ConfigError("say what to revoke: task=, queue= or headers=")
        for kind, name in (("task", self.task), ("queue", self.queue)):
            if name is not None:
                check_name(kind, name)

    def match(self, value: bytes) -> bool:
        """Say whether a stored message is meant; one that cannot be read is not."""
        try:
            task, queue, *_ = decode_head(value)
            if self.task not in (None, task) or self.queue not in (None, queue):
                return False
            if not self.headers:
                return True
            given = codec.unpack(decode(value).headers["user"])
            return all(name in given and given[name] == wanted for name, wanted in self.headers.items())
        except (DecodeError, KeyError, TypeError):
            return False


def find_all(keys: Keys, which: Which, where: str, seconds: float) -> Protocol[list[bytes]]:
    """Find what is meant, the oldest first, but for dead letters and what is revoked already.

    Each step is repeated as `persist` says.
    """
    cursor, found = b"0", {}  # a walk may meet an id twice
    while True:
        cursor, ids = yield from persist(auditing.scan_ids(keys, cursor, _CHUNK), where, seconds)
        values: list[bytes | None] = []
        if ids:
            values = yield from persist(call.hash_values(keys, "messages", ids), where, seconds)
        meant = [(raw_id, value) for raw_id, value in zip(ids, values, strict=True) if value and which.match(value)]
        if meant:
            names = [raw_id for raw_id, _ in meant]
            marks = yield from persist(call.hash_values(keys, "revoked", names), where, seconds)
            reasons = yield from persist(call.hash_values(keys, "reasons", names), where, seconds)
            for (raw_id, value), mark, reason in zip(meant, marks, reasons, strict=True):
                if mark is None and reason is None:
                    found[raw_id] = decode_head(value)[2]
        if cursor == b"0":
            return sorted(found, key=found.__getitem__)


def header_names(keys: Keys, where: str, seconds: float) -> Protocol[set[str]]:
    """Find the names of the headers that calls were given, of all messages there are."""
    cursor, names = b"0", set[str]()
    while True:
        cursor, ids = yield from persist(auditing.scan_ids(keys, cursor, _CHUNK), where, seconds)
        if ids:
            for value in (yield from persist(call.hash_values(keys, "messages", ids), where, seconds)):
                with suppress(DecodeError, KeyError, TypeError):
                    names |= set(codec.unpack(decode(value or b"").headers["user"]))
        if cursor == b"0":
            return names


def revoke_all(keys: Keys, which: Which, reason: str, where: str, seconds: float) -> Protocol[int]:
    """Revoke what is meant; answers how many there were. Each step is repeated as `persist` says."""
    ids = yield from find_all(keys, which, where, seconds)
    marked: list[bytes] = []
    for at in range(0, len(ids), _MARKED):
        marked += yield from persist(steering.mark(keys, ids[at : at + _MARKED], reason), where, seconds)
    for raw_id in marked:  # one that is unknown by now has had its turn, and ended by its mark
        yield from persist(steering.revoke(keys, raw_id, reason), where, seconds)
    return len(marked)
