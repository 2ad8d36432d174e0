"""Ids of calls: UUIDs of version 7, or names that callers give.

Source: RFC 9562. The 12 bits of ``rand_a`` name the partition; ``rand_b`` is a counter with a random start, so that the
ids of one process rise.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable

from taskq.config import NAME

_VARIANT_AND_VERSION = (0x7 << 76) | (0b10 << 62)


#: A UUID of the RFC's variant in its canonical form.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def _id_source() -> Callable[[], bytes]:
    clock, getpid = time.time_ns, os.getpid
    pid, count = 0, itertools.count().__next__

    def new_id() -> bytes:
        """Return a new id: the 16 bytes of a UUIDv7 of partition 0, larger than this process's last."""
        nonlocal pid, count
        if getpid() != pid:  # also in a process that C code forked: it calls none of Python's hooks
            count = itertools.count(int.from_bytes(os.urandom(8), "big") >> 3).__next__
            pid = getpid()
        return (clock() // 1_000_000 << 80 | _VARIANT_AND_VERSION | count()).to_bytes(16, "big")

    return new_id


new_id = _id_source()


def id_in(partition: int) -> bytes:
    """Return a new id of a partition; that of the first is `new_id`."""
    raw = new_id()
    return raw[:6] + (0x7000 | partition).to_bytes(2, "big") + raw[8:]


def id_partition(raw: bytes) -> int | None:
    """Return which partition an id names; None for one that is no UUIDv7, as its caller chose it."""
    if len(raw) == 16 and raw[6] >> 4 == 7 and raw[8] & 0xC0 == 0x80:
        return int.from_bytes(raw[6:8], "big") & 0xFFF
    return None


def id_to_text(raw: bytes) -> str:
    """Return an id as users see it: a UUID in its canonical form, or the name a caller gave."""
    if len(raw) == 16 and raw[8] & 0xC0 == 0x80:
        text = raw.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return raw.decode("ascii", "backslashreplace")


def id_from_text(text: str) -> bytes:
    """Return the stored form of an id; the inverse of `id_to_text`.

    Raises:
        ValueError: Not 1 to 200 of the characters of a name.
    """
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise ValueError(f"task_id {text!r:.80} is not 1 to 200 of the characters A-Z a-z 0-9 _ . : -")
    if _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    return text.encode()


def id_time(raw: bytes) -> float | None:
    """Return when the id was made, in seconds since the epoch by its maker's clock; None if it does not say."""
    if len(raw) == 16 and raw[6] >> 4 == 7 and raw[8] & 0xC0 == 0x80:
        return int.from_bytes(raw[:6], "big") / 1000
    return None
