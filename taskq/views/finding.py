"""Finding a message by its id: in the partition that the id names, if it names one, and then in the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskq.broker.commands import looking
from taskq.broker.commands.looking import Located
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology

#: What ``why.lua`` tells of a message that there is, or was.
_KNOWN = {b"result", b"reason", b"value"}


def locate(partitions: Topology, raw_id: bytes) -> Protocol[Located]:
    """Find where a message is."""
    found = Located("unknown")
    for keys in partitions.places(raw_id):
        found = yield looking.locate(keys, raw_id)
        if found.place != "unknown":
            break
    return found


def ask_why(partitions: Topology, raw_id: bytes, within: float | None = None) -> Protocol[Sequence[Any]]:
    """Ask why a message does not run (see ``taskq.views.why``); of each partition for ``within`` seconds at most."""
    reply: Sequence[Any] = ()
    for keys in partitions.places(raw_id):
        reply = yield replace(looking.why(keys, raw_id), within=within)
        if _KNOWN.intersection(reply[::2]):
            break
    return reply
