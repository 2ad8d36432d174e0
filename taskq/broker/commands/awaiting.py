"""What those ask who wait for results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is, block_word
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def await_results(keys: Keys, inbox: str, ids: Sequence[bytes]) -> Command[list[Any]]:
    """Read results and leave word for those to come; answers as ``await.lua`` says."""
    return Command(script("await"), [keys.prefix, inbox, *ids], as_it_is)


def take_inbox(keys: Keys, inbox: str, seconds: float) -> Command[list[bytes]]:
    """Wait for one result to come into the inbox."""
    words: list[Arg] = [b"BLPOP", keys["inbox:" + inbox], block_word(seconds)]
    return Command(None, words, lambda reply: reply[1:] if reply else [], repeatable=False, block=seconds)


def drain_inbox(keys: Keys, inbox: str) -> Command[list[bytes]]:
    """Take what else has come."""
    return Command(None, [b"LPOP", keys["inbox:" + inbox], 1000], lambda r: r or [], repeatable=False)


def forget(keys: Keys, raw_id: bytes) -> Command[int]:
    """Delete a result."""
    return Command(None, [b"DEL", keys["result:"] + raw_id], as_it_is)
