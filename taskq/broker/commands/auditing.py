"""What the audit asks: small looks at everything that is stored, and repairs of what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskq.broker.call import Arg, Command, as_dict, as_it_is, readable
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def audit(keys: Keys, every_ms: int) -> Command[bool]:
    """Whether it is the caller's turn to audit, which it is if nobody else's was less than ``every_ms`` ago."""
    return Command(script("audit"), [keys.prefix, every_ms], bool)


def note_audit(keys: Keys, text: bytes) -> Command[Any]:
    """Keep what the last audit has found (opaque)."""
    return Command(None, [b"SET", keys["audit"], text], as_it_is)


def last_audit(keys: Keys) -> Command[bytes]:
    """What the last audit has found; empty if nothing was kept."""
    return Command(None, [b"GET", keys["audit"]], lambda reply: reply or b"")


@dataclass(slots=True)
class Tally:
    """What a look at the conservation law found: messages, ids in places, and keys in which those of queues stand."""

    messages: int
    placed: int
    names: list[str]


def tally(keys: Keys, queues: Iterable[str]) -> Command[Tally]:
    """Compare what there is with where it is."""

    def parse(reply: Any) -> Tally:
        return Tally(reply[0], reply[1], [readable(name) for name in reply[2:]])

    return Command(script("tally"), [keys.prefix, *queues], parse)


def ledger(keys: Keys, missing: Mapping[str, int]) -> Command[int]:
    """Put the ledger right; ``missing`` has what is nowhere, of queues that do not balance. Answers how much was."""
    words: list[Arg] = [word for pair in missing.items() for word in pair]
    return Command(script("ledger"), [keys.prefix, *words], int, repeatable=False)


def _words(reply: Any) -> Counter[str]:
    """Read names with what was missing of each, in turn: how many times each thing was missing."""
    return Counter(word.decode() for word in reply[1::2])


def restore(keys: Keys, queues: Iterable[tuple[str, bool, str]]) -> Command[Counter[str]]:
    """Work out anew what is derived of queues: name, whether a task of it has limits, sets that serve it."""
    words: list[Arg] = [word for queue, limited, sets in queues for word in (queue, "1" if limited else "", sets)]
    return Command(script("restore"), [keys.prefix, *words], _words)


def reopen(keys: Keys, gates: Iterable[bytes]) -> Command[Counter[str]]:
    """Work out anew what is derived of gates, and (``=<name>``) of pauses."""
    return Command(script("reopen"), [keys.prefix, *gates], _words)


def recount(keys: Keys, gates: Iterable[bytes]) -> Command[int]:
    """Count the slots in use at gates by what is held; answers how many were wrong."""
    return Command(script("recount"), [keys.prefix, *gates], int)


def tidy(keys: Keys, name: str, fields: Iterable[bytes]) -> Command[int]:
    """Let go what is kept of messages that are gone; answers how much was."""
    return Command(script("tidy"), [keys.prefix, name, *fields], int)


def relock(keys: Keys, ids: Iterable[bytes]) -> Command[int]:
    """Give messages the locks that they ought to have; answers how many got one."""
    return Command(script("relock"), [keys.prefix, *ids], int)


def rouse(keys: Keys, entries: Iterable[str]) -> Command[int]:
    """Give periodic entries that are due at no time their next tick; answers how many got it."""
    return Command(script("rouse"), [keys.prefix, *entries], int)


def lines_of(gates: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
    """Read which lines of which queues wait at gates, of fields of the hash ``gates``: queue and line."""
    pairs = ((readable(who), readable(gate)) for gate, waiters in gates.items() for who in waiters.split())
    return [(who, gate) for who, gate in pairs if who[0] not in "*!" and gate[0] != "~"]


def held_values(keys: Keys, incarnation: str) -> Command[list[bytes]]:
    """What an incarnation holds, without the ids."""
    return Command(None, [b"HVALS", keys["processing:" + incarnation]], as_it_is)


def hash_length(keys: Keys, name: str) -> Command[int]:
    """How many fields a hash has."""
    return Command(None, [b"HLEN", keys[name]], int)


def scan_hash(keys: Keys, name: str, cursor: bytes, about: int) -> Command[tuple[bytes, dict[bytes, bytes]]]:
    """Some fields of a hash, and the cursor for more (``0`` at the end)."""
    words: list[Arg] = [b"HSCAN", keys[name], cursor, b"COUNT", about]
    return Command(None, words, lambda reply: (reply[0], as_dict(reply[1])))


def scan_ids(keys: Keys, cursor: bytes, about: int) -> Command[tuple[bytes, list[bytes]]]:
    """Some of the ids there are, and the cursor for more (``0`` at the end)."""
    return Command(script("scan"), [keys.prefix, cursor, about], lambda reply: (reply[0], reply[1:]))


def list_length(keys: Keys, name: str) -> Command[int]:
    """How many ids a list has."""
    return Command(None, [b"LLEN", keys[name]], int)


def set_length(keys: Keys, name: str) -> Command[int]:
    """How many ids a sorted set has."""
    return Command(None, [b"ZCARD", keys[name]], int)


def ids_in_list(keys: Keys, name: str, start: int, stop: int) -> Command[list[bytes]]:
    """Ids of a list (``queue:<queue>``, ``suspects:<queue>``)."""
    return Command(None, [b"LRANGE", keys[name], start, stop], as_it_is)


def ids_in_set(keys: Keys, name: str, start: int, stop: int) -> Command[list[bytes]]:
    """Ids of a sorted set (``schedule``, ``dead:<queue>``)."""
    return Command(None, [b"ZRANGE", keys[name], start, stop], as_it_is)


def mend(keys: Keys, doubtful: Iterable[tuple[bytes, str]], *, many: bool = False) -> Command[list[str]]:
    """Mend what is in no place, in several, or without a message; ids with the key where each was seen.

    Answers for as many as it has looked at, one at least; with ``many`` in all, each is looked for less widely.
    """
    args: list[Arg] = [keys.prefix, int(many)]
    for raw_id, seen in doubtful:
        args += [raw_id, seen]
    return Command(script("mend"), args, lambda reply: [word.decode() for word in reply])


def incarnations(keys: Keys) -> Command[list[str]]:
    """All incarnations that are registered."""
    return Command(None, [b"ZRANGE", keys["leases"], 0, -1], lambda reply: [readable(name) for name in reply])
