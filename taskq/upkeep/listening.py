"""Waits for bells as long as there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.commands import awaiting
from taskq.broker.protocol import Now, Protocol, Sleep

#: Seconds by which a server may answer a wait too late.
_GRAIN = 0.11


def listen(bells: Sequence[bytes], seconds: float) -> Protocol[list[bytes] | None]:
    """Wait until one of the bells rings, at most ``seconds``; answers its key and its token, or None in vain.

    A server looks at the timeouts of its clients ten times a second only, so the last tenth is slept out here.
    """
    until = (yield Now()) + seconds
    if seconds > _GRAIN:
        rang: list[bytes] | None = yield awaiting.wait_bells(bells, seconds - _GRAIN)
        if rang is not None:
            return rang
    yield Sleep(max(0.0, until - (yield Now())))
    if seconds <= _GRAIN:  # nobody listened, and the next wait may be as short
        for bell in bells:
            token: bytes | None = yield awaiting.take_bell(bell)
            if token is not None:
                return [bell, token]
    return None
