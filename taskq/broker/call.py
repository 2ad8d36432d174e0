"""One thing asked of the server, as a value: a script or a plain command, its arguments, how to read the reply.

Pure: nothing here does I/O, so the sync and the async connection execute the very same commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskq.broker.keys import Keys
from taskq.broker.scripts import Script

T_co = TypeVar("T_co", covariant=True)


Arg = bytes | str | int


def as_it_is(reply: Any) -> Any:
    """Return the reply itself."""
    return reply


@dataclass(frozen=True, slots=True)
class Command(Generic[T_co]):
    """One call of the server.

    Attributes:
        script: The script to run, or None for a plain command.
        args: The script's KEYS[1] and ARGV, or the plain command's words.
        parse: Turns the reply into its value.
        repeatable: Whether sending it twice is as good as once, so that an unknown outcome may be repeated.
        block: Seconds the server may take on purpose before it answers.
        bells: Lists to wait on for ``block`` seconds before the script runs. Both are sent in one write, so the script
            runs the moment a bell rings, without another round trip.
        heard: Called with the reply to that wait: the list and its token, or None in vain.
        within: Seconds to wait for the answer in all, where somebody waits for less than a connection would.
        ahead: The command that this connection executes next, unless it breaks: it may be sent in the same write.
        follows: It is only sent as another's ``ahead``: if the connection broke since, nobody knows what came of it.
    """

    script: Script | None
    args: Sequence[Arg]
    parse: Callable[[Any], T_co]
    repeatable: bool = True
    block: float = 0.0
    bells: Sequence[bytes] | None = None
    heard: Callable[[Any], object] = as_it_is
    within: float | None = None
    ahead: Command[Any] | None = None
    follows: bool = False


def readable(stored: bytes) -> str:
    """Return a stored name: anybody may have written it, so what is no text is shown in escapes, not an error."""
    return stored.decode(errors="backslashreplace")


def block_word(seconds: float) -> str:
    """Write how long a server may block: never 0, which is for ever, nor what Redis 6.2 rounds to that (0.001)."""
    return f"{max(seconds, 0.01):.3f}"


def hash_values(keys: Keys, name: str, fields: Sequence[bytes]) -> Command[list[bytes | None]]:
    """Values of a hash."""
    return Command(None, [b"HMGET", keys[name], *fields], as_it_is)


def whole_hash(keys: Keys, name: str) -> Command[dict[bytes, bytes]]:
    """All of a hash that grows with the number of queues and tasks only."""
    return Command(None, [b"HGETALL", keys[name]], as_dict)


def as_dict(reply: Any) -> dict[bytes, bytes]:
    """Return a hash, whichever protocol version the reply came by."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def scores(reply: Any) -> dict[str, float]:
    """Read names with times (stored in ms) as seconds, whichever protocol version the reply came by."""
    pairs = reply if not reply or isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
    return {readable(name): float(score) / 1000 for name, score in pairs}
