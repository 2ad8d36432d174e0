"""Periodic entries as the server keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from taskq.broker import call
from taskq.broker.commands import ticking
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import ConfigError, DecodeError
from taskq.periodic.entry import Entry
from taskq.views.names import unknown


@dataclass(frozen=True)
class Stored:
    """An entry as the server keeps it.

    Attributes:
        keys: Those of the partition it is in, that of the queue it sends to.
        name: Its name.
        raw: Its definition.
        due: When its next tick is due, in seconds since the epoch; None if it waits for none.
        state: What has become of it so far (see ``entry:<name>`` in ``taskq.broker.keys``).
    """

    keys: Keys
    name: str
    raw: bytes
    due: float | None
    state: Mapping[bytes, bytes]

    @property
    def app(self) -> str:
        """The app it is of."""
        return self.keys.app

    @cached_property
    def entry(self) -> Entry | None:
        """The entry, or None if it cannot be read."""
        try:
            return Entry.read(self.name, self.raw)
        except DecodeError:
            return None

    def number(self, field: bytes) -> int:
        """Return a number of its state; 0 if there is none."""
        return int(self.state.get(field, b"0"))

    @property
    def next(self) -> float | None:
        """The time of its next tick, in seconds since the epoch; None if nobody has worked it out."""
        return self.number(b"tick") / 1000 if self.due is not None and b"tick" in self.state else None

    @property
    def last(self) -> float | None:
        """The time of its last tick, in seconds since the epoch; None if there was none."""
        return self.number(b"last") / 1000 if b"last" in self.state else None

    @property
    def is_of_code(self) -> bool:
        """Whether some code declares it: else a command has added it."""
        return self.state.get(b"origin") == b"code"

    @property
    def paused(self) -> str:
        """By whom, when and why it was paused; empty if it is not."""
        return call.readable(self.state.get(b"paused", b""))


def entries_of(partitions: Topology) -> Protocol[list[Stored]]:
    """Read all entries of an app, by name."""
    found = []
    for keys in partitions.all:
        due: dict[str, float] = yield ticking.ticks_due(keys)
        definitions: dict[bytes, bytes] = yield call.whole_hash(keys, "periodic")
        for raw_name, raw in sorted(definitions.items()):
            name = raw_name.decode("ascii", "backslashreplace")
            found.append(Stored(keys, name, raw, due.get(name), (yield call.whole_hash(keys, f"entry:{name}"))))
    return sorted(found, key=lambda stored: stored.name)


def find_entry(apps: Sequence[Topology], name: str, where: str) -> Protocol[Stored]:
    """Find the entry of that name in one of the apps.

    Raises:
        ConfigError: There is none, and the text has the nearest ones; or several apps have one.
    """
    every: list[Stored] = []
    for app in apps:
        every += yield from entries_of(app)
    found = [stored for stored in every if stored.name == name]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(one.app for one in found)} have an entry {name}: say --name APP")
    if not found:
        raise unknown("periodic entry", name, where, [stored.name for stored in every])
    return found[0]


def entries_by_partition(partitions: Topology, entries: Mapping[str, bytes]) -> dict[Keys, dict[str, bytes]]:
    """Return stored entries by the partition each belongs to, that of its queue; every partition is named."""
    split: dict[Keys, dict[str, bytes]] = {keys: {} for keys in partitions.all}
    for name, raw in entries.items():
        split[partitions.of(Entry.read(name, raw).queue)][name] = raw
    return split


def would_declare(partitions: Topology, source: str, entries: Mapping[str, bytes]) -> Protocol[dict[str, str]]:
    """Tell what putting some code's entries in place would change, by their names (see ``declare.lua``)."""
    changes: dict[str, str] = {}
    for keys, some in entries_by_partition(partitions, entries).items():
        changes |= yield from _would_declare(keys, source, some)
    return changes


def _would_declare(keys: Keys, source: str, entries: Mapping[str, bytes]) -> Protocol[dict[str, str]]:
    definitions: dict[bytes, bytes] = yield call.whole_hash(keys, "periodic")
    stored = {name.decode(): raw for name, raw in definitions.items()}
    changes = {
        name: "replaced" if name in stored else "added" for name, raw in entries.items() if stored.get(name) != raw
    }
    declared: dict[bytes, bytes] = yield call.whole_hash(keys, "declared")
    mine = declared.pop(source.encode(), b"").decode().split()
    others = b" ".join(declared.values()).decode().split()
    for name in set(mine) - entries.keys() - set(others):
        state: dict[bytes, bytes] = yield call.whole_hash(keys, f"entry:{name}")
        if state.get(b"origin") == b"code":
            changes[name] = "removed"
    return changes
