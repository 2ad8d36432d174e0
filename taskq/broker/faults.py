"""What an error of the client library means for taskq: wait and repeat, or give up with a reason."""

from __future__ import annotations

import random
import re

from taskq.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable

#: Answers that are about a server's role or state: the call was not executed and may be repeated, there or where
#: another server has taken its place. Redis 6.2 puts a script's name before them, later ones behind.
_PASSING = re.compile(
    r"(^|\s-)(LOADING|READONLY|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|UNKILLABLE|UNBLOCKED|MISCONF)\b"
    r"|Script killed by user"  # an operator's SCRIPT KILL: it had written nothing
)
#: The same by the client library's classes, which drop the word.
_PASSING_KINDS = ("BusyLoadingError", "ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError")


class NotSent(Exception):
    """The connection could not be made: the command never left."""


class Unanswered(Exception):
    """The connection broke or timed out after the command may have left: its outcome is unknown."""


class Passing(Exception):
    """The server refused the command for now, without executing it."""


def refused(error: Exception) -> Exception:
    """Return what an error answer of the server stands for."""
    text = str(error)
    kind = type(error).__name__
    if kind in _PASSING_KINDS or _PASSING.search(text):
        return Passing(text)
    if kind == "OutOfMemoryError" or text.startswith("OOM") or "used memory > 'maxmemory'" in text:
        return BrokerFull("the server is over its maxmemory and accepts nothing new; workers go on draining it")
    if kind in ("MovedError", "AskError"):
        return BrokerRefused(
            f"the server is a node of a Cluster, which taskq does not support: name a single one ({text})"
        )
    return BrokerRefused(f"the server refused: {text}")


def backoff(attempt: int, cap: float) -> float:
    """Seconds to wait before the next try: full jitter over a doubling bound from 10 ms, at most ``cap``.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(cap, 0.01 * 2 ** min(attempt, 20)))


def unavailable(url: str, why: Exception, seconds: float) -> BrokerError:
    """Return the error of a call that was given up after ``seconds``."""
    text = str(why).rstrip(".")
    if isinstance(why, Passing):
        return BrokerUnavailable(f"{url} has refused for {seconds:g} s what it may accept later: {text}")
    return BrokerUnavailable(f"no answer from {url} for {seconds:g} s: {text}. Is the server up, is the URL right?")
