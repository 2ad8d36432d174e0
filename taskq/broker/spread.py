"""Sending to an app of any number of partitions: to the only one plainly, to several by the queue of each message.

Where there are several, each has a numbering of its own, and what is sent together goes in one call for each.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.producer import Message, Numbering, Sender
from taskq.broker.protocol import Protocol, drive
from taskq.broker.topology import Topology
from taskq.message.head import queue_of
from taskq.message.letters import ANSWER


class Numbers(typing.Protocol):
    """What numbers the calls of one sender: a `Numbering`, or several."""

    def send(self, messages: Sequence[Message]) -> Protocol[bytes]:
        """Send messages; answers a character a message, in their order. Raises as `Numbering.send`."""


class Sends(typing.Protocol):
    """What sends messages on a connection, for one thread at a time: a `Sender`, or several."""

    connection: Connection

    def send_one(self, raw_id: bytes, value: bytes, options: bytes) -> bytes:
        """Send one message; answers a character."""

    def send_many(self, messages: Sequence[Message]) -> bytes:
        """Send messages; answers a character a message."""


class Numberings:
    """A `Numbering` in each partition of an app that has several."""

    def __init__(self, app: Topology, where: str, seconds: float) -> None:
        """Begin numberings, as `Numbering` does."""
        self.app = app
        self.each = {keys: Numbering(keys, where, seconds) for keys in app.all}

    def send(self, messages: Sequence[Message]) -> Protocol[bytes]:
        """Send messages, a call for each partition they go to; answers in their order. Raises as `Numbering.send`.

        What went to partitions before the one that failed has been accepted.
        """
        split: dict[Keys, list[int]] = {}
        for place, message in enumerate(messages):
            split.setdefault(partition_of(self.app, message[1]), []).append(place)
        answers = [b""] * len(messages)
        for keys, places in split.items():
            reply = yield from self.each[keys].send([messages[place] for place in places])
            for place, answer in zip(places, ANSWER.findall(reply), strict=True):
                answers[place] = answer
        return b"".join(answers)


def partition_of(app: Topology, value: bytes) -> Keys:
    """Return the partition that a message goes to, by the queue in its head."""
    return app.of(queue_of(value).decode())


def new_numbering(app: Topology, where: str, seconds: float) -> Numbers:
    """Return what numbers the calls of one sender to an app."""
    return Numbering(app.first, where, seconds) if len(app.all) == 1 else Numberings(app, where, seconds)


class Senders:
    """A `Sender` to each partition of an app that has several."""

    def __init__(self, connection: Connection, numberings: Numberings) -> None:
        """Prepare a sender."""
        self.connection = connection
        self._numberings = numberings
        self._each = {keys: Sender(connection, numbering) for keys, numbering in numberings.each.items()}

    def send_one(self, raw_id: bytes, value: bytes, options: bytes) -> bytes:
        """Send one message, as `Sender.send_one`."""
        return self._each[partition_of(self._numberings.app, value)].send_one(raw_id, value, options)

    def send_many(self, messages: Sequence[Message]) -> bytes:
        """Send messages in a round trip for each partition; answers a character a message."""
        return drive(self._numberings.send(messages), self.connection)


def new_sender(app: Topology, connection: Connection, where: str, seconds: float) -> Sends:
    """Return what sends to an app on a connection."""
    if len(app.all) == 1:
        return Sender(connection, Numbering(app.first, where, seconds))
    return Senders(connection, Numberings(app, where, seconds))
