"""The mail server of the shows, which keeps its own books."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiosmtpd.controller import Controller

from taskq.showcase.example import GONE, GREY

#: For how many seconds the mail server says "not now" to a recipient that it greylists.
GREY_SECONDS = 1.5


#: The codes of its answers: accepted; not now; no such mailbox.
ACCEPTED, NOT_NOW, REFUSED = 250, 451, 550


@dataclass(slots=True)
class Attempt:
    """An entry of the books: a process offered a mail.

    Attributes:
        recipient: To whom.
        pid: The process, by its greeting; 0 if that does not say.
        at: When, in seconds of the monotonic clock.
        answer: The code it was given; 0 if the mail did not come to its end.
    """

    recipient: str
    pid: int
    at: float
    answer: int = 0


class MailBook:
    """The books: every offer of a mail, in the order of time.

    Attributes:
        of: The offers of mails to a recipient.
        by: The offers made by a process.
        entries: How many there are.
    """

    def __init__(self) -> None:
        """Begin empty books."""
        self.of: dict[str, list[Attempt]] = {}
        self.by: dict[int, list[Attempt]] = {}
        self.entries = 0

    def enter(self, attempt: Attempt) -> None:
        """Add an entry, the latest of all."""
        self.of.setdefault(attempt.recipient, []).append(attempt)
        self.by.setdefault(attempt.pid, []).append(attempt)
        self.entries += 1


class MailServer:
    """A real SMTP server on loopback. It makes unknown senders wait as greylisting servers do, and knows no one "gone".

    Source: RFC 6647, "Email Greylisting"; the codes are those of RFC 5321.

    Attributes:
        changed: Set when a mail was accepted.
        book: What it was offered, and what it answered.
        accepted: How many mails were accepted, by recipient.
        not_now: How many times it said "not now".
    """

    def __init__(self, seconds: float = 0.0) -> None:
        """Prepare a server that takes ``seconds`` over a mail; `start` lets it listen on a free port."""
        self.changed = threading.Event()
        self.book = MailBook()
        self.accepted: Counter[str] = Counter()
        self.not_now = 0
        self._seconds = seconds
        self._first_try: dict[str, float] = {}
        self._controller = _FreePort(self, hostname="127.0.0.1", port=0)

    def start(self) -> str:
        """Listen; returns host and port."""
        self._controller.start()
        return f"127.0.0.1:{self._controller.port}"

    def stop(self) -> None:
        """Stop listening."""
        self._controller.stop(no_assert=True)

    async def handle_RCPT(  # noqa: N802  the name aiosmtpd looks for
        self, _server: Any, session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Answer whether a recipient is taken."""
        who = re.match(r"process-(\d+)\.", session.host_name or "")
        attempt = Attempt(address, int(who[1]) if who else 0, time.monotonic())
        self.book.enter(attempt)
        if address.endswith(GONE):
            attempt.answer = REFUSED
            return "550 5.1.1 no such mailbox here"
        waited = attempt.at - self._first_try.setdefault(address, attempt.at)
        if address.endswith(GREY) and waited < GREY_SECONDS:
            attempt.answer = NOT_NOW
            self.not_now += 1
            return "451 4.7.1 greylisted, come again later"
        envelope.rcpt_tos.append(address)
        session.attempt = attempt
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Accept a mail, and write it into the books. Whoever dies before the answer cannot know that it was."""
        await asyncio.sleep(self._seconds / 2)
        session.attempt.answer = ACCEPTED
        self.accepted.update(envelope.rcpt_tos)
        self.changed.set()
        await asyncio.sleep(self._seconds / 2)
        return "250 accepted"


class _FreePort(Controller):
    """aiosmtpd's server thread, on whichever port is free."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]
