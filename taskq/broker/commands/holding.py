"""What incarnations ask: to take messages, settle them, wait for more; and what ends an incarnation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is, block_word, readable
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


class Lost(Exception):
    """The incarnation is not registered (any more): what it held belongs to others."""


class Stale(Exception):
    """The call number was not higher than the last one: the call changed nothing."""


def _owned(reply: Any) -> Any:
    """Check an answer to a call of an incarnation."""
    if reply[0] == b"lost":
        raise Lost
    if reply[0] == b"stale":
        raise Stale
    return reply


@dataclass(slots=True)
class Batch:
    """What a fetch brought.

    Attributes:
        now: Server time in ms.
        fenced: Outcomes refused because another owned the message by then.
        crashes: Counted deaths of the message, if it is a suspect.
        messages: Id and value in turn.
    """

    now: int
    fenced: int
    crashes: int
    messages: list[bytes]


def _batch(reply: Any) -> Batch:
    _owned(reply)
    return Batch(int(reply[0]), reply[1], reply[2], reply[3:])


def register(
    keys: Keys, incarnation: str, lease_ms: int, info: bytes, queues: QueueSet, announced: int | None = None
) -> Command[bool]:
    """Make an incarnation known, and the queues it serves; answers False while the announcement is not in force."""
    args: list[Arg] = [keys.prefix, incarnation, lease_ms, info, queues.id, queues.joined]
    return Command(script("register"), [*args, b"" if announced is None else announced], bool)


def fetch(
    keys: Keys,
    incarnation: str,
    number: int,
    outcomes: Iterable[Arg],
    *,
    want: int = 0,
    set_id: str = "",
    mode: str = "",
    caps: str = "",
    order: str = "",
    wait: float = 0.0,
    bells: Sequence[bytes] = (),
    heard: Callable[[Any], object] = as_it_is,
    ahead: Command[Any] | None = None,
) -> Command[Batch]:
    """Settle ``outcomes`` (groups as ``fetch.lua`` lists them) and take up to ``want`` messages.

    With ``wait``, first wait that many seconds at most for the set's bell, or for those given: ``heard`` is told which
    has rung. Whatever it says, the fetch follows.
    ``ahead`` is the command that follows on this connection, under the next number.
    """
    args = [keys.prefix, incarnation, number, want, set_id, mode, caps, order, *outcomes]
    names = (bells or (keys["bell:" + set_id],)) if wait else None
    return Command(script("fetch"), args, _batch, repeatable=False, block=wait, bells=names, heard=heard, ahead=ahead)


def sync(keys: Keys, incarnation: str, number: int, lost: int, known: Iterable[bytes]) -> Command[Any]:
    """Settle what is whose after call ``lost``; answers whether it was executed, and ids not held after all."""
    return Command(
        script("sync"),
        [keys.prefix, incarnation, number, lost, *known],
        lambda reply: (bool(_owned(reply)[0]), reply[1:]),
        repeatable=False,
    )


def wait_bell(keys: Keys, names: Sequence[str], seconds: float) -> Command[Any]:
    """Wait until one of the bells rings, at most ``seconds``; answers None in vain."""
    return wait_bells([keys[name] for name in names], seconds)


def wait_bells(bells: Sequence[bytes], seconds: float) -> Command[Any]:
    """Wait until one of the bells, of whichever partitions, rings, at most ``seconds``; answers None in vain."""
    words: list[Arg] = [b"BLPOP", *bells, block_word(seconds)]
    return Command(None, words, as_it_is, block=seconds)


def take_bell(bell: bytes) -> Command[Any]:
    """Take the token of a bell, if it has one; answers None in vain."""
    return Command(None, [b"LPOP", bell], as_it_is)


def held_ids(keys: Keys, incarnation: str) -> Command[list[bytes]]:
    """Ids an incarnation holds."""
    return Command(None, [b"HKEYS", keys["processing:" + incarnation]], as_it_is)


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


def _moves(flat: Sequence[bytes]) -> list[Move]:
    return [Move(flat[i], readable(flat[i + 1]), flat[i + 2].decode()) for i in range(0, len(flat), 3)]


def close(
    keys: Keys, incarnation: str, *, died: bool, alone: bool, running: Iterable[bytes], cause: bytes = b""
) -> Command[list[Move]]:
    """End an incarnation whose process is gone or going; ``cause`` is kept with messages given up for it.

    One that holds thousands is ended in pieces: to be repeated until there are no more moves.
    """
    how = "died" if died else "stopped"
    return Command(script("close"), [keys.prefix, incarnation, how, int(alone), cause, *running], _moves)


def close_lost(keys: Keys, incarnation: str) -> Command[list[Move]]:
    """End an incarnation of which nobody knows what ran, as a reaper does; in pieces like `close`."""
    return Command(script("close"), [keys.prefix, incarnation, b"lost", 0, b""], _moves)


@dataclass(frozen=True, slots=True)
class QueueSet:
    """The queues one lane of a worker serves; the id is the same for every worker of the same lanes.

    Attributes:
        order: How they share the workers' time, as ``fetch.lua`` reads it.
        tasks: Names of the tasks that the lane runs, whatever queue they come by.
    """

    id: str
    queues: tuple[str, ...]
    order: str = ""
    tasks: tuple[str, ...] = ()

    @property
    def joined(self) -> str:
        """The names joined by spaces."""
        return " ".join(self.queues)

    @classmethod
    def of(
        cls,
        queues: Iterable[str],
        weights: Mapping[str, int] | None = None,
        strict: bool = False,
        tasks: Iterable[str] = (),
        beside: Iterable[str] = (),
    ) -> QueueSet:
        """Make the set of these queues, which share time alike; or by ``weights``, or the highest first.

        ``beside`` are the queues of all lanes of the worker, by which the lanes of different ones are told apart.
        """
        import hashlib

        names, runs = tuple(sorted(set(queues))), tuple(sorted(tasks))
        order = " " if len(names) > 1 else ""  # alike
        if weights and names:
            order = "!" * strict + "".join(f" {name}={weights.get(name, 1)}" for name in names) + " "
        text = "\n".join((" ".join(names) + order, " ".join(runs), " ".join(sorted(beside))))
        return cls(hashlib.blake2b(text.encode(), digest_size=6).hexdigest(), names, order, runs)
