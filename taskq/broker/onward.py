"""From one partition to another: what a step in one is to cause in another is written down there, then carried over.

No script can write to two partitions. So the step itself writes what is to follow into its own partition's hash
``onward``, under the id that the message will have. Whoever made the step carries it over at once; if that is killed on
the way, any worker or reaper does so within a minute. The other side recognises what was carried over before
(``arrive.lua``), so a kill at any point loses nothing and doubles nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from taskq.broker.call import Command, as_dict, as_it_is
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.scripts import script
from taskq.broker.topology import Topology
from taskq.errors import BrokerRefused
from taskq.message.ids import id_to_text
from taskq.message.letters import ACCEPTED, OPTION_WARN, UNSERVED
from taskq.message.stored import as_sent

#: Messages read in one call, each of which may have a megabyte.
_SOME = 100

#: A message on its way: its id, the queue it goes to, the message as it is stored.
Leaving = tuple[bytes, str, bytes]


def send_on(keys: Keys, queue: str, raw_id: bytes, to: str, value: bytes) -> Command[bool]:
    """Write down that a dead letter goes to a queue of another partition; answers whether it can."""
    return Command(script("onward"), [keys.prefix, queue, raw_id, to, value], bool)


def arrive(keys: Keys, raw_id: bytes, stored: bytes) -> Command[bytes]:
    """Let a message arrive in the partition of its queue; answers as ``arrive.lua``.

    Raises:
        BrokerRefused: Somebody has spoilt what is stored of it.
    """
    try:
        value, options = as_sent(stored)
    except (IndexError, struct.error):
        text = f"message {id_to_text(raw_id)}, on its way to another partition, cannot be read: it stays there"
        raise BrokerRefused(text) from None
    return Command(script("arrive"), [keys.prefix, raw_id, value, options + OPTION_WARN], as_it_is)


def arrived(keys: Keys, raw_id: bytes, accepted: bool) -> Command[bool]:
    """Write down that a message has arrived elsewhere, or is not wanted there."""
    return Command(script("arrived"), [keys.prefix, raw_id, int(accepted)], bool)


def carry(partitions: Topology, keys: Keys, leaving: Leaving) -> Protocol[bytes]:
    """Carry a message over from the partition of ``keys``; answers as ``arrive.lua``: ``+``, ``-``, or why it stays."""
    raw_id, queue, stored = leaving
    answer: bytes = yield arrive(partitions.of(queue), raw_id, stored)
    yield arrived(keys, raw_id, answer in (ACCEPTED, UNSERVED))
    return answer


def carry_all(partitions: Topology) -> Protocol[int]:
    """Carry over what is still on its way; answers how much that was.

    Raises:
        BrokerRefused: The first message that cannot be carried over; all others were.
    """
    carried, refusal = 0, None
    for keys in partitions.all if len(partitions.all) > 1 else ():
        cursor = b"0"
        while True:
            cursor, some = yield _some(keys, cursor)
            for leaving in some:
                try:
                    yield from carry(partitions, keys, leaving)
                    carried += 1
                except BrokerRefused as error:
                    refusal = refusal or error
            if cursor == b"0":
                break
    if refusal is not None:
        raise refusal
    return carried


def on_their_way(partitions: Topology) -> Protocol[int]:
    """Count the messages that are on their way from one partition to another."""
    number = 0
    for keys in partitions.all:
        number += yield Command(None, [b"HLEN", keys["onward"]], int)
    return number


def _some(keys: Keys, cursor: bytes) -> Command[tuple[bytes, Sequence[Leaving]]]:
    def parse(reply: Any) -> tuple[bytes, Sequence[Leaving]]:
        return reply[0], [_read(raw_id, stored) for raw_id, stored in as_dict(reply[1]).items()]

    return Command(None, [b"HSCAN", keys["onward"], cursor, b"COUNT", _SOME], parse)


def _read(raw_id: bytes, stored: bytes) -> Leaving:
    queue, _, value = stored.partition(b"\n")
    return raw_id, queue.decode(errors="replace"), value
