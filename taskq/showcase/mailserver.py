"""The mail server of the shows, which keeps its own books."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from aiosmtpd.controller import Controller

from taskq.showcase.example import GONE, GREY

#: For how many seconds the mail server says "not now" to a recipient that it greylists.
GREY_SECONDS = 1.5


class MailServer:
    """A real SMTP server on loopback. It makes unknown senders wait as greylisting servers do, and knows no one "gone".

    Source: RFC 6647, "Email Greylisting"; the codes are those of RFC 5321.

    Attributes:
        changed: Set when a mail was accepted.
        accepted: How many mails were accepted, by recipient.
        not_now: How often it said "not now".
    """

    def __init__(self) -> None:
        """Prepare the server; `start` lets it listen on a free port."""
        self.changed = threading.Event()
        self.accepted: Counter[str] = Counter()
        self.not_now = 0
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
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Answer whether a recipient is taken."""
        if address.endswith(GONE):
            return "550 5.1.1 no such mailbox here"
        if address.endswith(GREY):
            now = time.monotonic()
            if now - self._first_try.setdefault(address, now) < GREY_SECONDS:
                self.not_now += 1
                return "451 4.7.1 greylisted, come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Accept a mail, and write it into the books."""
        self.accepted.update(envelope.rcpt_tos)
        self.changed.set()
        return "250 accepted"


class _FreePort(Controller):
    """aiosmtpd's server thread, on whichever port is free."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]
