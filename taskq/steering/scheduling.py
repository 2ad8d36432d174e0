"""Changing periodic entries: they are added, removed, paused, resumed, and sent out of turn."""

from __future__ import annotations

from collections.abc import Mapping

from taskq.broker import call
from taskq.broker.commands import announcing, ticking
from taskq.broker.protocol import Protocol
from taskq.broker.ticks import DueTick, Step
from taskq.broker.topology import Topology
from taskq.errors import ConfigError
from taskq.message.letters import FULL
from taskq.periodic.entry import Entry
from taskq.views.timetable import Stored, entries_by_partition

#: Why an entry sent nothing, by the server's answer.
_UNSENT = {
    b"x": "it has just been changed",
    b"u": "another message is the same unique work",
    FULL: "its queue is full",
}


def define(partitions: Topology, entry: Entry, *, replace: bool) -> Protocol[str]:
    """Put an entry in place, also of an app that the server does not know yet; answers what became of it.

    One of that name that sends to a queue of another partition goes first: it must not be there twice.
    """
    yield announcing.announce_app(partitions.first)
    home, moved = partitions.of(entry.queue), False
    for keys in partitions.all:
        if keys != home and entry.name.encode() in (yield call.whole_hash(keys, "periodic")):
            if not replace:
                return "exists"
            yield ticking.change_entry(keys, "remove", entry.name)
            moved = True
    answer: str = yield ticking.change_entry(home, "define", entry.name, entry.stored, int(replace))
    return "replaced" if moved else answer


def remove(stored: Stored) -> Protocol[str]:
    """Take an entry away; one that code declares comes back with the next change of that code."""
    answer: str = yield ticking.change_entry(stored.keys, "remove", stored.name)
    return answer


def pause(stored: Stored, note: str) -> Protocol[str]:
    """Send no ticks of an entry until it is resumed; ``note`` says by whom, when and why."""
    answer: str = yield ticking.change_entry(stored.keys, "pause", stored.name, note)
    return answer


def resume(stored: Stored) -> Protocol[bool]:
    """Let a paused entry go on, from its next tick on; answers whether it was paused."""
    answer: str = yield ticking.change_entry(stored.keys, "resume", stored.name)
    return answer != "running"


def run_now(stored: Stored, now: float) -> Protocol[bytes]:
    """Send an entry's task once, whatever else it waits for; answers the id. ``now``: seconds since the epoch.

    Raises:
        ConfigError: The entry cannot be read, or nothing was sent; the text says why.
    """
    if stored.entry is None:
        raise ConfigError(f"the periodic entry {stored.name} cannot be read here")
    tick = int(now * 1000)
    message = stored.entry.message(tick, "now:")
    step = Step(DueTick(stored.name, stored.raw, None, b"now"), message, tick, None)
    answer: bytes = yield ticking.take_ticks(stored.keys, [step])
    if why := _UNSENT.get(answer):
        raise ConfigError(f"the periodic entry {stored.name}: nothing was sent, {why}")
    return message[0]


def declare(partitions: Topology, source: str, revision: str, entries: Mapping[str, bytes]) -> Protocol[dict[str, str]]:
    """Put the entries that some code declares in place, as the newest code; answers what that changed."""
    yield announcing.announce_app(partitions.first)
    changes: dict[str, str] = {}
    for keys, some in entries_by_partition(partitions, entries).items():
        declared: ticking.Declared = yield ticking.declare(keys, source, revision, some, force=True)
        changes |= declared.entries
    return changes
