"""What keeps incarnations alive, and what ends them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is, readable
from taskq.broker.keys import Keys
from taskq.broker.queue_set import QueueSet
from taskq.broker.scripts import script


@dataclass(slots=True)
class Renewal:
    """What a renewal told.

    Attributes:
        next_end: Seconds until the caller is to look for ended leases.
        suspects: Whether suspects wait.
        lost: Incarnations that are lost.
        revoked: Incarnations with the id of a revoked message that they hold.
        unannounced: Whether the server has lost what the worker announced.
        unknown: Incarnations of which the server does not know what they are.
        healed: What was missing and was put back, for people.
        unheard: Whether something was ready and its bell was silent. It has rung now, but who hears it may be gone.
    """

    next_end: float
    suspects: bool
    lost: set[str]
    revoked: list[tuple[str, bytes]] = field(default_factory=list)
    unannounced: bool = False
    unknown: set[str] = field(default_factory=set)
    healed: list[str] = field(default_factory=list)
    unheard: bool = False


def _renewal(reply: Any) -> Renewal:
    next_ms, suspects, revoked, unannounced, unknown, healed, unheard, *lost = reply
    held = [(inc.decode(), raw_id) for inc, raw_id in zip(revoked[::2], revoked[1::2], strict=True)]
    return Renewal(
        int(next_ms) / 1000, bool(suspects), {inc.decode() for inc in lost}, held,
        bool(unannounced), {inc.decode() for inc in unknown}, [readable(what) for what in healed], bool(unheard),
    )  # fmt: skip


def renew(
    keys: Keys,
    lease_ms: int,
    sets: Iterable[QueueSet],
    incarnations: Iterable[str],
    announced: int | None = None,
    infos: Mapping[str, bytes] | None = None,
) -> Command[Renewal]:
    """Renew leases; ``infos`` says again what some of the incarnations are."""
    lines = "\n".join(f"{queues.id} {queues.joined}" for queues in sets)
    args: list[Arg] = [keys.prefix, lease_ms, lines, b"" if announced is None else announced]
    for incarnation in incarnations:
        args += [incarnation, (infos or {}).get(incarnation, b"")]
    return Command(script("renew"), args, _renewal)


@dataclass(frozen=True, slots=True)
class Move:
    """A message given back: ``place`` is queue, suspect, scheduled, dead, dangling, revoked; held in a dry run."""

    id: bytes
    queue: str
    place: str


def moves(flat: Sequence[bytes]) -> list[Move]:
    """Read the moves that a script names."""
    return [Move(flat[i], readable(flat[i + 1]), flat[i + 2].decode()) for i in range(0, len(flat), 3)]


def close(
    keys: Keys, incarnation: str, *, died: bool, alone: bool, running: Iterable[bytes], cause: bytes = b""
) -> Command[list[Move]]:
    """End an incarnation whose process is gone or going; ``cause`` is kept with messages given up for it.

    One that holds thousands is ended in pieces: to be repeated until there are no more moves.
    """
    how = "died" if died else "stopped"
    return Command(script("close"), [keys.prefix, incarnation, how, int(alone), cause, *running], moves)


def close_lost(keys: Keys, incarnation: str) -> Command[list[Move]]:
    """End an incarnation of which nobody knows what ran, as a reaper does; in pieces like `close`."""
    return Command(script("close"), [keys.prefix, incarnation, b"lost", 0, b""], moves)


def held_ids(keys: Keys, incarnation: str) -> Command[list[bytes]]:
    """Ids an incarnation holds."""
    return Command(None, [b"HKEYS", keys["processing:" + incarnation]], as_it_is)
