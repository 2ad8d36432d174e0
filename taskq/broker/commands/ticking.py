"""What is asked about periodic entries: to declare and change them, and to send their ticks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is, readable, scores
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.broker.ticks import Step


def take_ticks(keys: Keys, steps: Iterable[Step]) -> Command[bytes]:
    """Send due ticks and set the next ones; answers a character a step (see ``tick.lua``)."""
    args: list[Arg] = [keys.prefix]
    for step in steps:
        args += [step.due.name, step.due.revision, step.due.due]
        args += step.message or (b"", b"", b"")
        args += [int(step.alone), b"" if step.tick is None else step.tick, *(step.follows or (b"", b""))]
        args.append(int(step.dropped))
    return Command(script("tick"), args, as_it_is)


def declare(
    keys: Keys, source: str, revision: str, entries: Mapping[str, bytes], *, force: bool, announced: int | None = None
) -> Command[Declared]:
    """Put the entries of some code in place if it is new, or by ``force``, and what was lost of them."""
    args: list[Arg] = [keys.prefix, source, revision, int(force), b"" if announced is None else announced]
    return Command(script("declare"), [*args, *(word for pair in entries.items() for word in pair)], _declared)


@dataclass(frozen=True, slots=True)
class Declared:
    """What came of a declaration.

    Attributes:
        code: Whether it was ``new``, the ``same`` as the newest, or ``old``.
        entries: By name what changed, or would have: ``added``, ``replaced``, ``removed``; and what is ``restored``.
    """

    code: str
    entries: dict[str, str]


def _declared(reply: Any) -> Declared:
    code, *words = map(readable, reply)
    return Declared(code, dict(zip(words[::2], words[1::2], strict=True)))


def change_entry(keys: Keys, verb: str, name: str, *more: Arg) -> Command[str]:
    """Define, remove, pause or resume a periodic entry; answers what became of it (see ``entry.lua``)."""
    return Command(script("entry"), [keys.prefix, verb, name, *more], bytes.decode)


def ticks_due(keys: Keys) -> Command[dict[str, float]]:
    """When each entry's next tick is due, in seconds since the epoch; entries that wait for none are left out."""
    return Command(None, [b"ZRANGE", keys["ticks"], 0, -1, b"WITHSCORES"], scores)
