"""Sync tasks in a child's main thread: take a batch, run it message by message, settle it with the next take.

A second thread, the settler, watches over the first (see ``settler``), so that nothing waits behind a slow task.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from taskq.broker.commands.holding import Batch, Lost
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import boottime, drive
from taskq.message.outcome import Returned
from taskq.runs import logs
from taskq.runs.delivery import NOWHERE, Delivery, Route, Taken, current
from taskq.runs.hooks import due
from taskq.runs.invoke import run
from taskq.worker.child.lane import Means, Stopped
from taskq.worker.child.pace import BATCH, Pace
from taskq.worker.child.settler import Hand, start_settler
from taskq.worker.child.surroundings import LOOK_EVERY
from taskq.worker.child.where import MainThread
from taskq.worker.twin import leave_if_twin

log = logging.getLogger("taskq.worker")

#: Longest wait for a bell, in seconds. Bells that nobody heard are rung again by the parent's renewals; whoever wakes
#: fetches all the same, so that a connection is never silent for long: a router would forget it.
WAIT = 15.0
#: Seconds between two tries of a child whose lease has not been renewed in time.
UNRENEWED_PAUSE = 0.05
#: No process forks within so many seconds; asking for the pid would cost a tiny task too much.
_FORK_TAKES = 0.00002


class MainLane:
    """The lane of a child's main thread."""

    interrupted = False  # nothing here can be interrupted but by the death of the process

    def __init__(self, means: Means) -> None:
        """Prepare the lane."""
        self.session, self.executor, self.seat, url, self.quota, self._surroundings = means
        self._connection = Connection(url)
        self._settler_connection = Connection(url)
        self._pace = Pace({task.queue for task in self.executor.tasks.values() if task.at_most_once})
        self._lock = threading.Lock()  # one call of the session at a time
        self._hand = Hand()
        self._buffer, self._outcomes = self._hand.buffer, self._hand.outcomes
        self._here = MainThread(self.seat, self._surroundings)
        self._look_at = 0.0  # when to look next at what tasks have left

    def stop(self, grace: float | None = None) -> None:
        """Start nothing more; called by the signal handler, in the lane's own thread."""
        self._hand.stopping = True
        if self._hand.waiting:
            self._connection.close()  # the wait ends with an error, at once

    def revoke(self) -> None:
        """Do not run, or run no longer, what is revoked; called by the signal handler, in the lane's own thread."""
        revoked = self.seat.revoked()
        for delivery in self._hand.take_buffer():
            if delivery.index in revoked:
                self._outcomes.append(Returned(delivery.id))  # the server knows better than to keep it
            else:
                self._buffer.append(delivery)
        self._here.revoke()

    def run(self) -> None:
        """Take and run messages until told to stop."""
        self._begin()
        wait = 0.0
        while not self._hand.stopping:
            if boottime() > self.seat.lease_until:  # take nothing before it is renewed, or known to be lost
                self._exchange(self._connection, ask=True)
                time.sleep(UNRENEWED_PAUSE)
                continue
            batch = self._exchange(self._connection, want=self.quota.room(BATCH), wait=wait)
            if batch is None:
                wait = 0.0
                continue
            if batch.messages:
                self._surroundings.begin().run(self._run_batch, batch)
            # One that came after a wait came alone, and nothing is likely to wait behind it.
            wait = WAIT if not batch.messages or (wait and len(batch.messages) == 2) else 0.0
        self._end()

    def run_alone(self, ended: Callable[[], object]) -> bool:
        """Run one message, for which the child was made; says whether there was one, and calls ``ended`` if so."""
        self._begin()
        batch = None if self._hand.stopping else self._exchange(self._connection, want=1)
        if batch is not None and batch.messages:
            self._surroundings.begin().run(self._run_batch, batch)
        self._end()
        if batch is None or not batch.messages:
            return False
        ended()
        return True

    def _begin(self) -> None:
        with suppress(Stopped):
            drive(self.session.open(), self._connection, self._pause)
        start_settler(self._hand, partial(self._exchange, self._settler_connection))

    def _end(self) -> None:
        self._hand.ended = True
        self._hand.give_back()
        self._exchange(self._connection)
        drive(self.session.close(), self._connection)
        self.seat.idle()

    def _exchange(self, connection: Connection, want: int = 0, wait: float = 0.0, ask: bool = False) -> Batch | None:
        """Settle what has ended and take up to ``want`` messages, after a wait if there is nothing to do.

        Where there is something to settle nothing is taken before a wait, which is the next exchange's: see `Session`.
        With ``ask`` the server is asked even if there is nothing to settle and to take.
        Answers None if the incarnation was lost, or the wait was ended by a stop.
        """
        with self._lock:
            outcomes = []
            while self._outcomes:
                outcomes.append(self._outcomes.popleft())
            if not (outcomes or want or ask):
                return None
            self._hand.waiting = wait > 0 and not outcomes
            if self._hand.stopping:
                wait = 0.0
            steps = self.session.exchange(outcomes, want=want, caps=self._pace.caps, wait=wait)
            batch: Batch | None = None
            try:
                batch = drive(steps, connection, time.sleep if outcomes else self._pause)
            except Lost:
                log.warning("the lease of this child ended before it could be renewed: starting anew")
                self._hand.take_buffer()
                self._outcomes.clear()
                with suppress(Stopped):
                    drive(self.session.open(), connection, self._pause)
            except Exception as error:
                if not (self._hand.stopping and (self._hand.waiting or isinstance(error, Stopped))):
                    raise
                # Perhaps the signal's handler closed the connection in the midst of its use. What was taken meanwhile
                # is found by the sync that goes before the next call.
                self.session.doubtful = True
                return None
            finally:
                self._hand.waiting = False
            if connection is self._connection:  # the main thread's own: nothing runs
                self.seat.idle()
            return batch

    def _pause(self, seconds: float) -> None:
        """Wait between two tries of what need not be done any more once the lane is to stop."""
        if self._hand.stopping:
            raise Stopped
        time.sleep(seconds)

    def _run_batch(self, batch: Batch) -> None:
        """Run a batch message by message; the settler may take the rest of it away."""
        hand, buffer, outcomes, seat, session = self._hand, self._buffer, self._outcomes, self.seat, self.session
        executor, prepare, here = self.executor, self.executor.prepare, self._here
        incarnation = session.incarnation
        lease_until, memory, index_at = seat.lease_until, seat.memory, seat.index_at
        self._load(batch)
        hand.started = hand.batch_began = began = group_began = boottime()
        told, here.starts_told = logs.log.isEnabledFor(logging.INFO), logs.log.isEnabledFor(logging.DEBUG)
        route, ran = NOWHERE, 0  # measured together: messages of one kind that follow each other
        context, watched, busy, look_at = copy_context(), 1, True, self._look_at
        while not hand.stopping:
            try:
                delivery = buffer.popleft()  # this is the claim: one of the two threads gets it
            except IndexError:
                break
            if began > lease_until and began > (lease_until := seat.lease_until):
                # Not renewed in time: they may be another's already; if not, they go back.
                buffer.appendleft(delivery)
                self._give_back(incarnation)
                break
            # From here on it runs, until another does or the server knows how it ended (see _exchange).
            memory[index_at] = delivery.index
            outcome = prepare(delivery) or run(executor, delivery, here)
            if (now := boottime()) - began > _FORK_TAKES:
                leave_if_twin(0)
            if session.incarnation is incarnation:
                outcomes.append(outcome)
            if busy or delivery.route is not route or now >= look_at:
                if told and delivery.route is not NOWHERE:
                    logs.ended(delivery, outcome, now - began)
                if delivery.route is not route:
                    self._measure(route, began - group_began, ran)
                    route, ran, group_began = delivery.route, 0, began
                    watched = 1 if route is NOWHERE else route.watched
                if attended := self._attend_to(delivery, incarnation):
                    now = boottime()
                if watched or now >= look_at:
                    watched = self._surroundings.tidy(route, context)
                    self._look_at = look_at = now + LOOK_EVERY
                busy = bool(told or attended or watched)
                if route is not NOWHERE:
                    route.bare = not (watched or route.timed or route.judged or here.starts_told)
            ran += 1
            hand.started = began = now
        self._measure(route, began - group_began, ran)
        self._surroundings.main_busy = False
        hand.started = 0.0
        current.set(None)
        self.quota.spend(len(batch.messages) // 2)

    def _load(self, batch: Batch) -> None:
        """Put a batch into the buffer and into the seat's table; none of it runs yet."""
        messages, taken = batch.messages, Taken(batch.now, time.monotonic(), batch.crashes)
        self.seat.load(messages[::2])
        self._buffer.extend([Delivery(messages[i], messages[i + 1], taken, i >> 1) for i in range(0, len(messages), 2)])
        work = self._hand.work
        if len(messages) > 2 and not work.is_set():  # behind or before a single one there is nothing to settle
            work.set()
        self._surroundings.main_busy = True

    def _give_back(self, incarnation: str) -> None:
        if self.session.incarnation is incarnation:
            self._hand.give_back()
        else:
            self._hand.take_buffer()

    def _measure(self, route: Route, seconds: float, ran: int) -> None:
        if route is not NOWHERE:
            self._pace.saw(route.queue, seconds, ran)

    def _attend_to(self, delivery: Delivery, incarnation: str) -> bool:
        """Do what is to be done at once for a delivery that has ended; says whether its kind asks for anything."""
        once = delivery.route is not NOWHERE and delivery.task.at_most_once
        if once:  # it must not come back: its seat says that it runs until the server knows how it ended
            self._exchange(self._connection)
        if self.executor.told and self.session.incarnation is incarnation:
            for hook in due(self.executor, delivery):
                self._hand.work.set()  # while it lasts, the settler settles what has ended
                hook.call()
                leave_if_twin(0)
        return once or self.executor.told
