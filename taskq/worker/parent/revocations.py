"""Running messages that are revoked: their children are told, and killed if that does not help."""

from __future__ import annotations

from collections import deque

from taskq.worker.seats import Seat, digest

#: Seconds a revoked task has to end, before its process is killed.
REVOKE_GRACE = 5.0


class Revocations:
    """What a parent has heard of, until it has ended."""

    def __init__(self) -> None:
        """Begin with none."""
        self._heard: deque[tuple[str, bytes]] = deque()
        self._open: dict[tuple[str, bytes], float] = {}  # incarnation and digest of the message → when its grace ends
        self._untold: set[tuple[str, bytes]] = set()

    def hear(self, incarnation: str, raw_id: bytes) -> None:
        """Take note of a revocation; from any thread."""
        self._heard.append((incarnation, digest(raw_id)))

    def pending(self, now: float) -> bool:
        """Take in what was heard; answers whether there is anything to look after."""
        while self._heard:
            revoked = self._heard.popleft()
            if revoked not in self._open:
                self._open[revoked] = now + REVOKE_GRACE
                self._untold.add(revoked)
        return bool(self._open)

    def look(self, seat: Seat, now: float) -> tuple[bool, set[bytes]]:
        """Write into ``seat`` what its lane is to run no longer.

        Returns:
            Whether its child is to be told: once, and again while what is revoked runs, for it may have been on its way
            to the child the first time. And the digests of what still runs when its grace is over.
        """
        mine = {entry: ends for (incarnation, entry), ends in self._open.items() if incarnation == seat.incarnation}
        running = seat.running() & mine.keys()
        late = {entry for entry in running if now >= mine[entry]}
        seat.revoke(list(mine))
        return bool(running) or any((seat.incarnation, entry) in self._untold for entry in mine), late

    def forget(self, now: float) -> None:
        """All seats have been looked at: drop those whose grace is over."""
        self._untold.clear()
        self._open = {revoked: ends for revoked, ends in self._open.items() if now < ends}
