"""One call of a task as bytes: its id, the head that scripts read, the envelope that workers read.

What is stored for a message is ``head ‖ envelope``:

=======  =====================================================================================
offset   head
=======  =====================================================================================
0        format version, 1
1        flags: 1 = an expiry follows, 2 = at most once, 4 = more follows the names
2        accepted: server time in milliseconds, a big-endian double, stamped by the enqueue script
10       expiry, likewise, only with its flag
then     length (one byte) and name of the task; length and name of the queue
then     only with its flag: length (two bytes), then fields: a letter, length (one byte), content
=======  =====================================================================================

The letters: ``p`` priority (a byte, 128 is 0), ``f`` weight (a big-endian double) and key in a fair queue, ``1`` to
``9`` keys of the limits of that number, ``l`` (empty) has limits, ``u`` lock of unique work, ``d`` how it is debounced.

The envelope is a msgpack array ``[version, id, headers, body]``. The body is opaque bytes made by the
codec, so a body that cannot be read never stops its message from being handled.

Source of ids: RFC 9562, UUID version 7; the 12 bits of ``rand_a`` name the partition, ``rand_b`` is a
counter with a random start, so that the ids of one process rise.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from taskq.config import NAME
from taskq.errors import DecodeError
from taskq.message import codec

VERSION = 1
FLAG_EXPIRES, FLAG_AT_MOST_ONCE, FLAG_MORE = 1, 2, 4
_VARIANT_AND_VERSION = (0x7 << 76) | (0b10 << 62)
_DOUBLE = struct.Struct(">d")
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


def encode_head(task: str, queue: str, at_most_once: bool = False, more: bytes = b"") -> bytes:
    """Return the head as a producer sends it: without the time stamps that the enqueue script puts in."""
    names = task.encode(), queue.encode()
    flags = (FLAG_AT_MOST_ONCE if at_most_once else 0) + (FLAG_MORE if more else 0)
    head = bytes([VERSION, flags, len(names[0])]) + names[0] + bytes([len(names[1])]) + names[1]
    return head + len(more).to_bytes(2, "big") + more if more else head


#: How the envelope of a call without options begins: [version, 16 bytes of id, ...
PLAIN = b"\x94\x01\xc4\x10"


def encode_plain(raw_id: bytes, headers: bytes, body: bytes) -> bytes:
    """Return the envelope of a call with an id of 16 bytes and headers already written."""
    size = len(body)
    if size < 256:
        return b"%s%s%s\xc4%c%s" % (PLAIN, raw_id, headers, size, body)
    if size < 65536:
        return b"%s%s%s\xc5%s%s" % (PLAIN, raw_id, headers, size.to_bytes(2, "big"), body)
    return b"%s%s%s\xc6%s%s" % (PLAIN, raw_id, headers, size.to_bytes(4, "big"), body)


def plain_body(value: bytes, at: int) -> bytes | None:
    """Return the body that begins at ``at`` and ends the message; None if none does."""
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4}.get(value[at])
    if width is None:
        return None
    start = at + 1 + width
    return value[start:] if int.from_bytes(value[at + 1 : start], "big") == len(value) - start else None


def encode_envelope(raw_id: bytes, headers: dict[str, Any], body: bytes) -> bytes:
    """Return the envelope of a call."""
    return bytes(msgpack.packb([VERSION, raw_id, headers, body]))


@dataclass(slots=True)
class Envelope:
    """A message as a worker reads it."""

    id: bytes
    task: str
    queue: str
    accepted: float
    expires: float | None
    headers: dict[str, Any]
    body: bytes
    head: bytes

    def with_headers(self, headers: dict[str, Any]) -> bytes:
        """Return the stored value of the same message with other headers (a retry, a return)."""
        return self.head + encode_envelope(self.id, headers, self.body)


def decode_head(value: bytes) -> tuple[str, str, float, float | None, int]:
    """Return task, queue, accepted and expiry (server ms), and where the envelope begins.

    Raises:
        DecodeError: Not a head of this version.
    """
    try:
        if value[0] != VERSION:
            raise DecodeError(f"a message of format version {value[0]}, this taskq reads {VERSION}")
        accepted = _DOUBLE.unpack_from(value, 2)[0]
        at, expires = 10, None
        if value[1] & FLAG_EXPIRES:
            expires, at = _DOUBLE.unpack_from(value, 10)[0], 18
        split = at + 1 + value[at]
        names_end = end = split + 1 + value[split]
        if value[1] & FLAG_MORE:
            end += 2 + (value[end] << 8 | value[end + 1])
        if end > len(value):
            raise DecodeError("a message cut short within its head")
        return value[at + 1 : split].decode(), value[split + 1 : names_end].decode(), accepted, expires, end
    except (IndexError, struct.error, UnicodeDecodeError):
        raise DecodeError("a message without a readable head") from None


def decode_fields(value: bytes) -> dict[bytes, bytes]:
    """Return what a readable head says beside its names, by the letters."""
    if not value[1] & FLAG_MORE:
        return {}
    at = 18 if value[1] & FLAG_EXPIRES else 10
    for _ in ("task", "queue"):
        at += 1 + value[at]
    end, found = at + 2 + int.from_bytes(value[at : at + 2], "big"), {}
    at += 2
    while at + 1 < end:
        size = value[at + 1]
        found[value[at : at + 1]] = value[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def decode(value: bytes) -> Envelope:
    """Read a stored message.

    Raises:
        DecodeError: Cut short, of another version, or not a message at all; the text says which.
    """
    task, queue, accepted, expires, at = decode_head(value)
    try:
        envelope = codec.read(memoryview(value)[at:])
    except DecodeError as error:
        raise DecodeError(f"in the envelope: {error}") from None
    if type(envelope) is not list or len(envelope) != 4 or envelope[0] != VERSION:
        raise DecodeError("an envelope that is not [version, id, headers, body] of a known version")
    _, raw_id, headers, body = envelope
    if type(raw_id) is not bytes or type(headers) is not dict or type(body) is not bytes:
        raise DecodeError("an envelope whose parts have the wrong types")
    return Envelope(raw_id, task, queue, accepted, expires, headers, body, value[:at])
