"""Sending messages so that a lost answer neither loses nor doubles one.

Each sender has an id and a rising number that go with every call; the server keeps the last number with its answer
and recognises a repeat (``enqueue.lua``). One sender has one call in flight, and one connection. What several
partitions need is in ``taskq.broker.spread``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from taskq.broker.commands import producing
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff, unavailable
from taskq.broker.keys import Keys
from taskq.broker.net.connection import ANSWER_TIMEOUT, LACKS_SCRIPT, NO_SCRIPT, Connection
from taskq.broker.protocol import Now, Protocol, Sleep, drive
from taskq.broker.scripts import script
from taskq.errors import BrokerRefused, EnqueueUncertain
from taskq.message.ids import id_to_text

#: A message to send: id, head ‖ envelope, options (see ``enqueue.lua``).
Message = tuple[bytes, bytes, bytes]


def answer_timeout(seconds: float) -> float:
    """Seconds to wait for one answer, of a call that has ``seconds`` in all: enough are left for another try."""
    return min(seconds / 2, ANSWER_TIMEOUT)


class Numbering:
    """The producer id and call numbers of one sender, and its protocol for calls that need more than one try."""

    def __init__(self, keys: Keys, where: str, seconds: float) -> None:
        """Begin a numbering; a call is given up after ``seconds`` without an answer from ``where``."""
        self.keys = keys
        self.where = where
        self.seconds = seconds
        self.number = 0
        self.producer = os.urandom(8).hex().encode()

    def send(
        self, messages: Sequence[Message], failed: Exception | None = None, began: float | None = None
    ) -> Protocol[bytes]:
        """Send one call under the next number, again and again until it is answered.

        Args:
            messages: What to send.
            failed: The error of a first try under the present number, if one was made.
            began: When that was, by the clock of protocols; now unless given.

        Raises:
            EnqueueUncertain: Given up while the server may have accepted it.
            BrokerUnavailable: Given up while it is known that nothing was accepted.
            BrokerRefused: The server will not have it.
        """
        began, attempt = began or (yield Now()), 0
        if failed is None:
            self.number += 1
        uncertain = False
        while True:
            if failed is not None:
                uncertain = uncertain or isinstance(failed, Unanswered)
                delay = backoff(attempt, 0.5)
                if (yield Now()) + delay - began > self.seconds:
                    raise self._given_up(messages, failed, uncertain)
                yield Sleep(delay)
                attempt += 1
            try:
                reply: bytes = yield producing.enqueue(self.keys, self.producer, self.number, messages)
                return reply
            except (NotSent, Unanswered, Passing) as error:
                failed = error
            except BrokerRefused as error:
                if uncertain:
                    raise self._given_up(messages, error, uncertain) from None
                raise

    def _given_up(self, messages: Sequence[Message], why: Exception, uncertain: bool) -> Exception:
        # The number stays in doubt, so a later call must not be taken for its repeat: begin anew.
        self.producer = os.urandom(8).hex().encode()
        if not uncertain:
            return unavailable(self.where, why, self.seconds)
        ids = tuple(id_to_text(message[0]) for message in messages)
        return EnqueueUncertain(
            f"no answer from {self.where} for {self.seconds:g} s ({why}): the message may have been accepted or not. "
            f"Calling again with the same task_id ({', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}) is safe",
            ids,
        )


class Sender:
    """A connection to send on, for one thread at a time, to one partition."""

    def __init__(self, connection: Connection, numbering: Numbering) -> None:
        """Prepare a sender."""
        self.connection = connection
        self.numbering = numbering
        self._prepare()

    def _prepare(self) -> None:
        """Write the parts of a command that do not change from call to call."""
        self._producer = self.numbering.producer
        prefix = self.numbering.keys.prefix
        words = (b"EVALSHA", script("enqueue").sha, b"1", prefix, self._producer)
        before = b"*9\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        # The number is written in 16 digits, so that its length is known.
        message = before.replace(b"%", b"%%") + b"$16\r\n%016d\r\n$16\r\n%s\r\n$%d\r\n%s\r\n"
        self._plain, self._with_options = message + b"$0\r\n\r\n", message + b"$%d\r\n%s\r\n"

    def send_one(self, raw_id: bytes, value: bytes, options: bytes) -> bytes:
        """Send one message; the path of every ``delay()``: a command from prepared parts, one round trip."""
        numbering = self.numbering
        if len(raw_id) != 16:
            return self.send_many([(raw_id, value, options)])
        if numbering.producer is not self._producer:
            self._prepare()
        numbering.number += 1
        packed = (
            self._with_options % (numbering.number, raw_id, len(value), value, len(options), options)
            if options
            else self._plain % (numbering.number, raw_id, len(value), value)
        )
        try:
            reply = self.connection.roundtrip(packed)
        except (NotSent, Unanswered, Passing) as error:
            failed: Exception = error
        else:
            if reply is not NO_SCRIPT:
                return reply  # type: ignore[no-any-return]
            failed = Passing(LACKS_SCRIPT)
        return drive(numbering.send([(raw_id, value, options)], failed), self.connection)

    def send_many(self, messages: Sequence[Message]) -> bytes:
        """Send messages in one round trip; answers a character a message."""
        return drive(self.numbering.send(messages), self.connection)
