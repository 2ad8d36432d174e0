"""Revoking: messages are not to run, or to run no longer; some by their ids, or all there is of a task or a queue.

To find all there is, the ids are walked in chunks, which is no instant: what is sent meanwhile may be met or not; what
was there before, and still is, will be. Then all are marked, a thousand in one step and the oldest first, so that none
is begun while they are revoked one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from taskq.broker import call
from taskq.broker.commands import auditing, leasing, looking, steering
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology, keys_of
from taskq.config import check_name
from taskq.errors import ConfigError, DecodeError
from taskq.message import codec
from taskq.message.envelope import decode
from taskq.message.head import decode_head

#: Messages read in one call, each of which may have a megabyte; ids marked in one.
_CHUNK, _MARKED = 100, 1000
#: What comes of revoking a message, by where it is.
_WOULD = {"processing": "running", "scheduled": "revoked", "pending": "revoked"}


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


def revoke(partitions: Topology, raw_id: bytes, reason: str = "") -> Protocol[str]:
    """Let a message not run, or run no longer; answers revoked, running (its worker is told), dead, or unknown."""
    answer = "unknown"
    for keys in partitions.places(raw_id):
        answer = yield steering.revoke(keys, raw_id, reason)
        if answer != "unknown":
            break
    return answer


def revoke_these(apps: Sequence[Topology], ids: Sequence[bytes], reason: str = "") -> Protocol[dict[bytes, str]]:
    """Revoke each, in whichever app it is; answers of each as `revoke` does."""
    answers = dict.fromkeys(ids, "unknown")
    for keys in keys_of(apps):
        marked = yield from _mark(keys, ids, reason)
        for raw_id in [raw_id for raw_id, answer in answers.items() if answer == "unknown"]:
            answer = yield steering.revoke(keys, raw_id, reason)
            # What was marked and is unknown by now has had its turn, and ended by its mark.
            answers[raw_id] = "revoked" if answer == "unknown" and raw_id in marked else answer
    return answers


def would_revoke(apps: Sequence[Topology], ids: Sequence[bytes]) -> Protocol[dict[bytes, str]]:
    """Tell what `revoke_these` would answer now."""
    answers = dict.fromkeys(ids, "unknown")
    for keys in keys_of(apps):
        for raw_id in [raw_id for raw_id, answer in answers.items() if answer == "unknown"]:
            found: looking.Located = yield looking.locate(keys, raw_id)
            [reason] = yield call.hash_values(keys, "reasons", [raw_id])
            answers[raw_id] = "dead" if reason is not None else _WOULD.get(found.place, "unknown")
    return answers


def find_all(partitions: Topology, which: Which) -> Protocol[list[bytes]]:
    """Find what is meant, the oldest first in each partition, but for dead letters and what is revoked already."""
    found: list[bytes] = []
    for keys in partitions.all:
        found += yield from _find_all(keys, which)
    return found


def _find_all(keys: Keys, which: Which) -> Protocol[list[bytes]]:
    cursor, found = b"0", {}  # a walk may meet an id twice
    while True:
        cursor, ids = yield auditing.scan_ids(keys, cursor, _CHUNK)
        values: list[bytes | None] = (yield call.hash_values(keys, "messages", ids)) if ids else []
        meant = [(raw_id, value) for raw_id, value in zip(ids, values, strict=True) if value and which.match(value)]
        if meant:
            names = [raw_id for raw_id, _ in meant]
            marks = yield call.hash_values(keys, "revoked", names)
            reasons = yield call.hash_values(keys, "reasons", names)
            for (raw_id, value), mark, reason in zip(meant, marks, reasons, strict=True):
                if mark is None and reason is None:
                    found[raw_id] = decode_head(value)[2]
        if cursor == b"0":
            return sorted(found, key=found.__getitem__)


def count_running(partitions: Topology, ids: Collection[bytes]) -> Protocol[int]:
    """Count how many of them a worker holds."""
    running = 0
    for keys in partitions.all:
        for name in (yield auditing.incarnations(keys)):
            running += len({*ids}.intersection((yield leasing.held_ids(keys, name))))
    return running


def header_names(partitions: Topology) -> Protocol[set[str]]:
    """Find the names of the headers that calls were given, of all messages there are."""
    names = set[str]()
    for keys in partitions.all:
        names |= yield from _header_names(keys)
    return names


def _header_names(keys: Keys) -> Protocol[set[str]]:
    cursor, names = b"0", set[str]()
    while True:
        cursor, ids = yield auditing.scan_ids(keys, cursor, _CHUNK)
        if ids:
            for value in (yield call.hash_values(keys, "messages", ids)):
                with suppress(DecodeError, KeyError, TypeError):
                    names |= set(codec.unpack(decode(value or b"").headers["user"]))
        if cursor == b"0":
            return names


def revoke_all(partitions: Topology, which: Which, reason: str = "") -> Protocol[int]:
    """Revoke what is meant; answers how many there were."""
    marked: list[tuple[Keys, bytes]] = []
    for keys in partitions.all:
        ids = yield from _find_all(keys, which)
        marked += [(keys, raw_id) for raw_id in (yield from _mark(keys, ids, reason))]
    for keys, raw_id in marked:  # one that is unknown by now has had its turn, and ended by its mark
        yield steering.revoke(keys, raw_id, reason)
    return len(marked)


def _mark(keys: Keys, ids: Sequence[bytes], reason: str) -> Protocol[list[bytes]]:
    """Let none of them be begun while the others are revoked; answers which are alive."""
    marked: list[bytes] = []
    for at in range(0, len(ids), _MARKED):
        marked += yield steering.mark(keys, ids[at : at + _MARKED], reason)
    return marked
