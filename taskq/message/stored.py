"""Changing a stored message and reading what only scripts read, for those who look at messages and move them."""

from __future__ import annotations

import struct

from taskq.message.letters import FLAG_EXPIRES, FLAG_MORE, OPTION_EXPIRES_AT

_DOUBLE = struct.Struct(">d")


def unstamped(value: bytes) -> bytes:
    """Return a message that does not expire as its producer sent it; the inverse of `head.stamped`."""
    return value[:2] + value[10:]


def with_queue(value: bytes, queue: str) -> bytes:
    """Return a stored message with another queue in its head, which can be read."""
    at = 18 if value[1] & FLAG_EXPIRES else 10
    at += 1 + value[at]
    return value[:at] + bytes([len(queue)]) + queue.encode() + value[at + 1 + value[at] :]


def with_expiry(value: bytes, expires: float) -> bytes:
    """Return a stored message with another moment (ms) at which it expires; its head can be read."""
    rest = value[18:] if value[1] & FLAG_EXPIRES else value[10:]
    return bytes([value[0], value[1] | FLAG_EXPIRES]) + value[2:10] + _DOUBLE.pack(expires) + rest


def as_sent(value: bytes) -> tuple[bytes, bytes]:
    """Return a stored message as a producer would send it, with the option that says when it expires."""
    if not value[1] & FLAG_EXPIRES:
        return unstamped(value), b""
    sent = bytes([value[0], value[1] - FLAG_EXPIRES]) + value[18:]
    return sent, b"%s%d" % (OPTION_EXPIRES_AT, _DOUBLE.unpack_from(value, 10)[0])


def decode_fields(value: bytes) -> dict[bytes, bytes]:
    """Return what a readable head says besides its names, by the letters."""
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
