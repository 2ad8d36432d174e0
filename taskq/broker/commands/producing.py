"""What producers ask: that messages be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.call import Arg, Command, as_it_is
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def enqueue(keys: Keys, producer: bytes, number: int, messages: Sequence[tuple[bytes, bytes, bytes]]) -> Command[bytes]:
    """Accept messages, each an id, a value and options; answers a character a message (see ``enqueue.lua``)."""
    args: list[Arg] = [keys.prefix, producer, number]
    for message in messages:
        args.extend(message)
    return Command(script("enqueue"), args, as_it_is)
