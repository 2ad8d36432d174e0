"""The audit: looks for what no script leaves behind but an operator's hand or a restored snapshot can, and mends it.

By the conservation law there are as many messages as ids in places. Comparing the two numbers is one cheap script; only
when they differ (or when there is little to look through) the ids themselves are walked, in chunks. Such a walk is no
instant: ids move meanwhile. So what it finds is merely doubtful, and ``mend.lua`` looks at each again, atomically.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from taskq.broker import commands
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.envelope import id_to_text

log = logging.getLogger("taskq.audit")

#: Ids read in one call, ids mended in one call.
_CHUNK, _MEND = 1000, 20
#: Up to so many messages the ids are walked even if the numbers agree: one too many may hide one too few.
_FEW = 1000

#: An id that may be in the wrong place, and the key where it was seen (empty for nowhere).
Doubtful = tuple[bytes, str]


def audit(keys: Keys, every_ms: int) -> Protocol[Counter[str]]:
    """Look once, unless somebody has within ``every_ms``; answers what was mended, by the words of ``mend.lua``."""
    mended: Counter[str] = Counter()
    check: commands.Check | None = yield commands.audit(keys, every_ms)
    if check is None:
        return mended
    if check.incarnations or check.recounted:
        log.warning(
            "audit: %d incarnations half registered, scheduled messages of %d queues miscounted; both put right",
            check.incarnations, check.recounted,
        )  # fmt: skip
        mended.update(incarnations=check.incarnations, recounted=check.recounted)
    if check.messages == check.placed and not 0 < check.messages <= _FEW:
        return mended
    doubtful = yield from _walk(keys, check.queues)
    for some in _chunks(doubtful, _MEND):
        verdicts: list[str] = yield commands.mend(keys, some)
        for (raw_id, seen), verdict in zip(some, verdicts, strict=True):
            if verdict != "sound":
                log.warning("audit: message %s was in the wrong place (%s): %s", id_to_text(raw_id), seen, verdict)
                mended[verdict] += 1
    return mended


def _walk(keys: Keys, queues: list[str]) -> Protocol[list[Doubtful]]:
    """Read all ids: first where they are, then which there are."""
    placed: dict[bytes, str] = {}
    doubtful: list[Doubtful] = []

    def note(ids: Iterable[bytes], name: str) -> None:
        for raw_id in ids:
            if raw_id in placed:
                doubtful.append((raw_id, name))
            placed[raw_id] = name

    for incarnation in (yield commands.incarnations(keys)):
        note((yield commands.held_ids(keys, incarnation)), "processing:" + incarnation)
    lines: list[str] = yield commands.lines(keys)
    names = [(commands.ids_in_list, f"{family}:{queue}") for queue in queues for family in ("queue", "suspects")]
    names += [(commands.ids_in_list, "gated:" + line) for line in lines]
    names += [(commands.ids_in_set, f"{family}:{queue}") for queue in queues for family in ("ranked", "dead")]
    names += [(commands.ids_in_set, "ranked:" + line) for line in lines]
    names.append((commands.ids_in_set, "schedule"))
    for read, name in names:
        at = 0
        while ids := (yield read(keys, name, at, at + _CHUNK - 1)):
            note(ids, name)
            at += _CHUNK
    cursor, messages = b"0", set()
    while True:
        cursor, ids = yield commands.scan_ids(keys, cursor, _CHUNK)
        messages.update(ids)
        if cursor == b"0":
            break
    doubtful += [(raw_id, name) for raw_id, name in placed.items() if raw_id not in messages]
    doubtful += [(raw_id, "") for raw_id in messages if raw_id not in placed]
    return doubtful


def _chunks(doubtful: list[Doubtful], size: int) -> Iterator[list[Doubtful]]:
    for first in range(0, len(doubtful), size):
        yield doubtful[first : first + size]
