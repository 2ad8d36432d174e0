"""What incarnations ask: to take messages and settle them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is
from taskq.broker.keys import Keys
from taskq.broker.queue_set import QueueSet
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


def read_batch(reply: Any) -> Batch:
    """Read what ``fetch.lua`` answers; raises `Lost` or `Stale`."""
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
    return Command(
        script("fetch"), args, read_batch, repeatable=False, block=wait, bells=names, heard=heard, ahead=ahead
    )


def sync(
    keys: Keys, incarnation: str, number: int, lost: int, known: Iterable[bytes]
) -> Command[tuple[bool, list[bytes]]]:
    """Settle what is whose after call ``lost``; answers whether it was executed, and ids not held after all."""
    return Command(
        script("sync"),
        [keys.prefix, incarnation, number, lost, *known],
        lambda reply: (bool(_owned(reply)[0]), reply[1:]),
        repeatable=False,
    )
