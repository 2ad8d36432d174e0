"""Changing periodic entries: they are added, removed, paused, resumed, and sent out of turn."""

from __future__ import annotations

from collections.abc import Mapping

from taskq.broker.commands import announcing, ticking
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.ticks import DueTick, Step
from taskq.errors import ConfigError
from taskq.message.letters import FULL
from taskq.periodic.entry import Entry
from taskq.views.timetable import Stored

#: Why an entry sent nothing, by the server's answer.
_UNSENT = {
    b"x": "it has just been changed",
    b"u": "another message is the same unique work",
    FULL: "its queue is full",
}


def define(keys: Keys, entry: Entry, *, replace: bool) -> Protocol[str]:
    """Put an entry in place, also of an app that the server does not know yet; answers what became of it."""
    yield announcing.announce_app(keys)
    answer: str = yield ticking.change_entry(keys, "define", entry.name, entry.stored, int(replace))
    return answer


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


def declare(keys: Keys, source: str, revision: str, entries: Mapping[str, bytes]) -> Protocol[dict[str, str]]:
    """Put the entries that some code declares in place, as the newest code; answers what that changed."""
    yield announcing.announce_app(keys)
    declared: ticking.Declared = yield ticking.declare(keys, source, revision, entries, force=True)
    return declared.entries
