"""What a lane asks of several partitions in one command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from taskq.broker.call import Command
from taskq.broker.commands.holding import Batch, read_batch
from taskq.broker.keys import Keys
from taskq.broker.queue_set import QueueSet
from taskq.broker.scripts import script


def fetch_any(
    partitions: Sequence[tuple[Keys, int]],
    incarnation: str,
    *,
    want: int,
    queues: QueueSet,
    caps: str,
    wait: float,
    bells: Sequence[bytes],
    heard: Callable[[Any], object],
    after: tuple[Keys, int] | None = None,
) -> Command[tuple[int, Batch]]:
    """Wait for the bells of several partitions, then take from the first that has something ready; answers from which.

    Each partition comes with its call number. ``after`` are those of the call that this one is sent with. It must not
    be sent twice, since it may come to another partition then.
    """
    keys, sent_with = after or (partitions[0][0], "")
    numbers, prefixes = " ".join(str(number) for _, number in partitions), [each.prefix for each, _ in partitions]
    args = [keys.prefix, incarnation, numbers, want, queues.id, "", caps, queues.order, sent_with, *prefixes]
    return Command(
        script("fetch_any"), args, lambda reply: (reply[0] - 1, read_batch(reply[1])),
        repeatable=False, block=wait, bells=bells, heard=heard, follows=after is not None,
    )  # fmt: skip
