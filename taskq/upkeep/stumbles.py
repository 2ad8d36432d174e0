"""Doing several things beside each other, of which one that goes wrong holds up no other."""

from __future__ import annotations

import logging
from typing import TypeVar

from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.protocol import Protocol
from taskq.errors import BrokerRefused, BrokerUnavailable

log = logging.getLogger("taskq.reaper")

T = TypeVar("T")

#: The server is away, for all of them; all else that goes wrong is its answer's.
OUTAGES = (NotSent, Unanswered, Passing, BrokerUnavailable)


class Stumbles:
    """What goes wrong without holding up anything else.

    Attributes:
        stumbles: How many times something did, by what it was.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.stumbles: dict[str, int] = {}
        self._said: dict[str, str] = {}

    def beside(self, what: str, steps: Protocol[T], default: T) -> Protocol[T]:
        """Do one thing of several: what goes wrong in it (a refusal, unreadable bytes) is in no other's way."""
        try:
            value = yield from steps
        except OUTAGES:
            raise
        except Exception as error:
            self.stumble(what, error)
            return default
        self._said.pop(what, None)
        return value

    def stumble(self, what: str, error: Exception) -> None:
        """Count what went wrong, and say it when it begins."""
        self.stumbles[what] = self.stumbles.get(what, 0) + 1
        text = f"{type(error).__name__}: {error}"
        if self._said.get(what) != text:
            self._said[what] = text
            known = isinstance(error, BrokerRefused)
            log.error("cannot %s; everything else goes on: %s", what, text, exc_info=not known)
