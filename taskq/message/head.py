"""The head of a stored message, which scripts read: nothing but this and ``stored`` knows where in it something stands.

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
"""

from __future__ import annotations

import struct

from taskq.errors import DecodeError
from taskq.message.letters import FLAG_AT_MOST_ONCE, FLAG_EXPIRES, FLAG_MORE

VERSION = 1


_DOUBLE = struct.Struct(">d")


def encode_head(task: str, queue: str, at_most_once: bool = False, more: bytes = b"") -> bytes:
    """Return the head as a producer sends it: without the time stamps that the enqueue script puts in."""
    names = task.encode(), queue.encode()
    flags = (FLAG_AT_MOST_ONCE if at_most_once else 0) + (FLAG_MORE if more else 0)
    head = bytes([VERSION, flags, len(names[0])]) + names[0] + bytes([len(names[1])]) + names[1]
    return head + len(more).to_bytes(2, "big") + more if more else head


#: How the envelope of a call without options begins: [version, 16 bytes of id, ...
PLAIN = b"\x94\x01\xc4\x10"


def stamped(value: bytes, accepted: float = 0.0) -> bytes:
    """Return a message as the server keeps it: with the time (ms) of its acceptance, which a producer leaves out."""
    return value[:2] + _DOUBLE.pack(accepted) + value[2:]


def queue_of(value: bytes) -> bytes:
    """Return the name of the queue that a message goes to, as its producer sends it."""
    at = 3 + value[2]
    return value[at + 1 : at + 1 + value[at]]


def plain_start(value: bytes) -> tuple[bytes, int]:
    """Return what leads to the route of a plain call, and where its id begins; nothing and 0 of any other message.

    That is what stands between the stamp and the id, but for what only scripts read.

    Raises:
        IndexError: A message cut short.
    """
    at = 11 + value[10]
    at += 1 + value[at]
    if not value[1]:
        end = at
    elif value[1] == FLAG_MORE:
        end = at + 2 + (value[at] << 8 | value[at + 1])
    else:
        return b"", 0
    if value[0] != VERSION or not value.startswith(PLAIN, end):
        return b"", 0
    return value[10:at], end + len(PLAIN)


def names_of(head: bytes, task: str, queue: str) -> bytes:
    """Return what `plain_start` returns of calls with a head like this one, which has no expiry."""
    return head[10 : 12 + len(task) + len(queue)]


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
