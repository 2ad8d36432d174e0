"""What those that wait ask: processes for results, workers for their bells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskq.broker.call import Arg, Command, as_it_is, block_word
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.broker.topology import Topology


def await_results(keys: Keys, inbox: str, ids: Sequence[bytes]) -> Command[list[Any]]:
    """Read results and leave word for those to come; answers as ``await.lua`` says."""
    return Command(script("await"), [keys.prefix, inbox, *ids], as_it_is)


def take_inbox(partitions: Topology, inbox: str, seconds: float) -> Command[list[bytes]]:
    """Wait for one result to come into the inbox, in whichever partition; answers that list and the result."""
    words: list[Arg] = [b"BLPOP", *(keys["inbox:" + inbox] for keys in partitions.all), block_word(seconds)]
    return Command(None, words, lambda reply: list(reply or ()), repeatable=False, block=seconds)


def drain_inbox(name: bytes) -> Command[list[bytes]]:
    """Take what else has come into an inbox, by the name of its list."""
    return Command(None, [b"LPOP", name, 1000], lambda r: r or [], repeatable=False)


def forget(keys: Keys, raw_id: bytes) -> Command[int]:
    """Delete a result."""
    return Command(None, [b"DEL", keys["result:"] + raw_id], as_it_is)


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
