"""Sending to an app of any number of partitions: to the only one plainly, to several by the queue of each message.

Where there are several, each has a numbering of its own, and what is sent together goes in one call for each, all in
one write.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import NamedTuple

from taskq.broker.call import Command
from taskq.broker.commands import producing
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.producer import Message, Numbering, Sender
from taskq.broker.protocol import Now, Protocol, Together, drive
from taskq.broker.topology import Topology
from taskq.errors import BrokerError, BrokerRefused, EnqueueUncertain
from taskq.message.head import queue_of
from taskq.message.ids import id_to_text
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
        """Send messages, a call for each partition they go to, all in one write; answers in their order.

        Raises:
            EnqueueUncertain: Given up while the server may have accepted some of them, or has accepted others.
            BrokerUnavailable: Given up while it is known that nothing was accepted.
            BrokerRefused: A partition will not have what is for it; others may have accepted theirs.
        """
        began = yield Now()
        split: dict[Keys, list[int]] = {}
        for place, message in enumerate(messages):
            split.setdefault(partition_of(self.app, message[1]), []).append(place)
        calls = [_CallOfSome(self.each[keys], places, [messages[n] for n in places]) for keys, places in split.items()]
        try:
            replies = yield Together([call.first_try() for call in calls])
        except (NotSent, Passing) as error:  # while it was connecting
            replies = [error] * len(calls)
        answers, failures = [b""] * len(messages), []
        for call, reply in zip(calls, replies, strict=True):
            try:
                whole = yield from call.until_answered(reply, began)
            except BrokerError as error:
                failures.append((error, call.messages))
                continue
            for place, answer in zip(call.places, ANSWER.findall(whole), strict=True):
                answers[place] = answer
        if failures:
            raise _failed(failures, len(messages))
        return b"".join(answers)


class _CallOfSome(NamedTuple):
    """What goes to one partition of what is sent together."""

    numbering: Numbering
    places: list[int]
    messages: list[Message]

    def first_try(self) -> Command[bytes]:
        """Return the call, under the next number."""
        numbering = self.numbering
        numbering.number += 1
        return producing.enqueue(numbering.keys, numbering.producer, numbering.number, self.messages)

    def until_answered(self, reply: bytes | Exception, began: float) -> Protocol[bytes]:
        """Return the reply to the first try, or send it again, as `Numbering.send` does."""
        if isinstance(reply, (NotSent, Unanswered, Passing)):
            return (yield from self.numbering.send(self.messages, reply, began))
        if isinstance(reply, Exception):
            raise reply
        return reply


def _failed(failures: Sequence[tuple[BrokerError, list[Message]]], of: int) -> BrokerError:
    """Return the error for calls of which some failed, and say how many did not."""
    error, _ = failures[0]
    accepted = of - sum(len(messages) for _, messages in failures)
    unheard = [one for one in failures if not isinstance(one[0], BrokerRefused)]
    if unheard and (accepted or any(isinstance(one, EnqueueUncertain) for one, _ in failures)):
        ids = tuple(id_to_text(raw_id) for _, messages in unheard for raw_id, _, _ in messages)
        error = EnqueueUncertain(str(unheard[0][0]), ids)
    if accepted:
        error.args = (f"{error}; {accepted} of {of} calls, to other partitions, were accepted", *error.args[1:])
    return error


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
        """Send messages in one round trip; answers a character a message."""
        return drive(self._numberings.send(messages), self.connection)


def new_sender(app: Topology, connection: Connection, where: str, seconds: float) -> Sends:
    """Return what sends to an app on a connection."""
    if len(app.all) == 1:
        return Sender(connection, Numbering(app.first, where, seconds))
    return Senders(connection, Numberings(app, where, seconds))
