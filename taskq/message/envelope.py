"""One call of a task as bytes: the envelope, which workers read, behind the head, which scripts read.

The envelope is a msgpack array ``[version, id, headers, body]``. The body is opaque bytes made by the
codec, so a body that cannot be read never stops its message from being handled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from taskq.errors import DecodeError
from taskq.message import codec
from taskq.message.head import PLAIN, VERSION, decode_head


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
