"""What the books prove: what was lost, what ran again and for which fault, how soon work went on. Pure.

The witness is the mail server, which knows nothing of taskq: its entries say which process offered which mail when. Of
all the runs of a mail one is its due. Each of the others must have been made by a process that a fault hit while it
held the mail; otherwise it is unexplained.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from taskq.broker.commands.looking import QueueSurvey
from taskq.showcase.mailserver import ACCEPTED, NOT_NOW, REFUSED, Attempt, MailBook
from taskq.showcase.trouble import Kind

#: Seconds after a fault in which the mail server may still hear of what the process had begun before.
_ON_ITS_WAY = 1.0
#: Counted deaths that make a dead letter.
MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Call:
    """A call that taskq accepted: whose mail, into which queue, when (monotonic seconds)."""

    recipient: str
    queue: str
    at: float


@dataclass(eq=False, slots=True)
class Fault:
    """A fault that was carried out.

    Attributes:
        kind: What was done.
        what: To whom, for people.
        began: When, in seconds of the monotonic clock.
        ended: When the worker went on, or the server answered again; `began` for what is over at once.
        pids: Processes of tasks that it hit; they were stopped first, so `held` is what they held.
        held: Ids of the messages those processes held.
        awaited: Processes of tasks that lost their connection and are to go on.
    """

    kind: Kind
    what: str
    began: float
    ended: float
    pids: frozenset[int] = frozenset()
    held: frozenset[str] = frozenset()
    awaited: frozenset[int] = frozenset()


def delays(fault: Fault, book: MailBook, faults: Sequence[Fault], calls: Mapping[str, Call]) -> list[float]:
    """Return after how many seconds each loss of a fault was made good, as far as it was; `math.inf` if not yet.

    For each mail that was held: until another process offered it, or, if none did, until its own went on; one whose
    process was killed too often is left out, since it is not to run again. For each process that lost its connection:
    until it offered a mail; one that another fault hit before that is left out. The time counts from the fault, or from
    the server's return if it was away meanwhile: a lease that nobody could renew begins anew then.
    """
    since = fault.ended if fault.awaited else fault.began
    if since == math.inf:
        return [math.inf]
    went_on = fault.ended if fault.kind is Kind.STOP else math.inf
    moments = []
    for raw_id in fault.held & calls.keys():
        offers = book.of.get(calls[raw_id].recipient, [])
        later = (offer.at for offer in offers if offer.at >= since and offer.pid not in fault.pids)
        moment = next(later, went_on)
        if moment < math.inf or not _is_given_up(raw_id, fault, faults):
            moments.append(moment)
    hit = {pid: later.began for later in reversed(faults) if later.began > fault.began for pid in later.pids}
    for pid in fault.awaited:
        offers = book.by.get(pid, [])
        first = bisect_left(offers, since, key=lambda offer: offer.at)
        moment = offers[first].at if first < len(offers) else math.inf
        if pid not in hit or moment < hit[pid]:
            moments.append(moment)
    away = [(later.began, later.ended) for later in faults if later.kind is Kind.SERVER and later.began > since]
    return [_seconds(since, moment, away) for moment in moments]


def _seconds(since: float, moment: float, away: Sequence[tuple[float, float]]) -> float:
    if moment == math.inf:
        return moment
    return max(0.0, moment - max([since, *(back for gone, back in away if gone < moment)]))


def _is_given_up(raw_id: str, fault: Fault, faults: Sequence[Fault]) -> bool:
    """Whether a message has been held by enough processes that were hit, up to this fault, to be a dead letter."""
    return sum(raw_id in earlier.held for earlier in faults if earlier.began <= fault.began) >= MAX_CRASHES


@dataclass(frozen=True, slots=True)
class Rerun:
    """A run of a mail beyond its due one.

    Attributes:
        id: Of the message.
        fault: The fault that explains it, if one does.
        twice: Whether the mail arrived once more by it.
    """

    id: str
    fault: Fault | None
    twice: bool


@dataclass
class Books:
    """What is known at the end.

    Attributes:
        calls: What taskq accepted, by id.
        book: The mail server's books.
        faults: What was broken, in the order of time.
        dead: Why a message is a dead letter, by id.
        queues: taskq's own ledger.
    """

    calls: dict[str, Call]
    book: MailBook
    faults: list[Fault]
    dead: dict[str, str]
    queues: dict[str, QueueSurvey]

    def runs(self, raw_id: str) -> list[Attempt]:
        """Return the offers of a mail, without those that were told to come again."""
        offers = self.book.of.get(self.calls[raw_id].recipient, [])
        return [offer for offer in offers if offer.answer != NOT_NOW]

    @cached_property
    def arrived(self) -> set[str]:
        """Ids of the mails that the mail server has."""
        return {raw_id for raw_id in self.calls if any(run.answer == ACCEPTED for run in self.runs(raw_id))}

    @property
    def lost(self) -> list[str]:
        """Ids of accepted calls with neither a mail nor a dead letter."""
        return [raw_id for raw_id in self.calls if raw_id not in self.arrived and raw_id not in self.dead]

    @cached_property
    def reruns(self) -> list[Rerun]:
        """Every run beyond the due one of its mail."""
        return [rerun for raw_id in self.calls for rerun in self._reruns_of(raw_id)]

    def _reruns_of(self, raw_id: str) -> list[Rerun]:
        runs = self.runs(raw_id)
        if len(runs) < 2:
            return []
        left, broken = list(runs), []
        for fault in self.faults:
            if raw_id not in fault.held:
                continue
            hit = [run for run in left if run.pid in fault.pids and run.at <= fault.ended + _ON_ITS_WAY]
            if hit:
                left.remove(hit[0])
                broken.append((fault, hit[0]))
        arrived = sum(run.answer == ACCEPTED for run in runs)
        # Those that brought the mail once more come first: they must not hide behind those that did not.
        broken.sort(key=lambda pair: pair[1].answer != ACCEPTED)
        explained: list[Fault | None] = [fault for fault, _ in broken[: len(runs) - 1]]
        causes = explained + [None] * (len(runs) - 1 - len(explained))
        return [Rerun(raw_id, cause, place < arrived - 1) for place, cause in enumerate(causes)]

    @property
    def unexplained(self) -> list[str]:
        """Ids of the mails that ran again without a fault."""
        return [rerun.id for rerun in self.reruns if rerun.fault is None]

    @property
    def dead_without_cause(self) -> list[str]:
        """Ids of dead letters that neither the mail server refused nor enough faults killed."""
        return [raw_id for raw_id, reason in self.dead.items() if not self._is_explained(raw_id, reason)]

    def _is_explained(self, raw_id: str, reason: str) -> bool:
        if raw_id not in self.calls:
            return False
        if reason == "crashed":
            return sum(raw_id in fault.held for fault in self.faults) >= MAX_CRASHES
        return any(run.answer == REFUSED for run in self.runs(raw_id))

    @property
    def problems(self) -> list[str]:
        """What must not be, in words; nothing if all is well."""
        found = []
        if self.lost:
            found.append(f"{len(self.lost)} mails are missing: {self._named(self.lost)}")
        if self.unexplained:
            found.append(f"{len(self.unexplained)} runs have no fault to explain them: {self._named(self.unexplained)}")
        if self.dead_without_cause:
            found.append(f"dead without a cause: {self._named(self.dead_without_cause)}")
        called = Counter(call.queue for call in self.calls.values())
        for name in sorted(called | Counter(self.queues.keys())):
            queue = self.queues.get(name, QueueSurvey({}))
            accepted = queue.counters.get("accepted", 0)
            if accepted != called[name]:
                found.append(f"queue {name}: taskq says it accepted {accepted:,}, but {called[name]:,} calls returned")
            if queue.balance:
                found.append(f"queue {name}: the ledger is off by {queue.balance}")
            if dangling := queue.counters.get("dangling", 0):
                found.append(f"queue {name}: of {dangling:,} messages only the id was left, they were never run")
            if left := queue.scheduled + queue.gated + queue.pending + queue.suspects + queue.processing:
                found.append(f"queue {name}: {left:,} messages had not ended when nothing moved any more")
        done = sum(queue.counters.get("done", 0) for queue in self.queues.values())
        if done != len(self.arrived - self.dead.keys()):
            found.append(f"taskq says {done:,} are done, the mail server has {len(self.arrived - self.dead.keys()):,}")
        return found

    def _named(self, ids: Sequence[str]) -> str:
        names = [self.calls[raw_id].recipient if raw_id in self.calls else raw_id for raw_id in ids[:5]]
        return ", ".join(names) + (" …" if len(ids) > 5 else "")

    @property
    def longest_wait(self) -> float:
        """Seconds from a call to its mail's first arrival, at most; without those that were told to come again."""
        waits = [0.0]
        for raw_id in self.arrived:
            call = self.calls[raw_id]
            offers = self.book.of[call.recipient]
            if all(offer.answer != NOT_NOW for offer in offers):
                waits.append(next(offer.at for offer in offers if offer.answer == ACCEPTED) - call.at)
        return max(waits)
