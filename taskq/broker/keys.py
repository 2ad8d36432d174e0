"""Every key taskq writes, in one place.

All keys of an app's partition begin with ``tq:{<app>:<partition>}:``, one hash tag, so a script runs in one
Cluster slot and one ACL pattern covers an app. ``tq:apps``, a set, lists the apps. After the prefix:

===================  ==========  ===================================================================
key                  type        holds
===================  ==========  ===================================================================
messages             hash        id → head ‖ envelope, from acceptance to the end
queue:<queue>        list        ids waiting, the next one first
ranked:<queue>       sorted set  ids waiting that have a priority, or a key in a fair queue, by rank; likewise
                                 ``ranked:<line>``, of those that wait in a line
turns                hash        queue → turns given to its ranked messages without a key
fair:<queue>         sorted set  ``<priority>|<key>`` by its last turn; ``<priority>`` by the last turn taken
gated:<line>         list        ids waiting for gates; the line is ``<queue>|<gates>``, those its messages alone have;
                                 at ``<task>#t`` for a lane, or a worker, that runs the task
gates                hash        gate, line or group → who waits there: queue with such a line or group, ``*queue`` as a
                                 whole, ``!queue``: its suspects; joined by spaces
heads:<group>        sorted set  lines that wait as a group, by the place of their first message; the group is
                                 ``<queue>|~<task>``, or ``<queue>|~<gate>``
openings             sorted set  gate by when it opens (ms); ``=<queue>`` by when its pause is over
arrivals             sorted set  gate of a rate by its theoretical arrival time (ms)
shut                 sorted set  gate by the time (ms) until which a task that was told to slow down has shut it
slots                hash        gate of a concurrency → slots in use
limits               hash        task → its limits, a line each; ``!<task>``: set by hand instead
tasks                hash        task → its queue
breakers             hash        task → its breaker: c closed, o open, h half open; a time (ms); last outcomes
unique               hash        lock → until (ms, 0: no limit) and id of the message that holds it
throttle:<lock>      string      until (ms) and id of the message that was let through; expires
onward               hash        id of a message that is on its way to another partition → the queue there, newline, the
                                 message; until it has arrived (see ``onward.lua``)
arrived:<id>         string      a message of that id has come from another partition; expires after a week
set-back             string      ms by which the server's clock has been set back; locks for a time go on
paused               hash        queue, or ``=<task>`` in a shared one → since and until (ms), by whom, newline, why
lines:<queue>        sorted set  gates whose lines came up while the queue was paused → when
marks                hash        queue, or ``*`` for all → letters of what is special: p paused, r ranked, l limited,
                                 o given messages that run at most once and have their own queue elsewhere,
                                 x with a length at most and messages that expire
revoked              hash        id → why; of messages that end when their turn comes, or run
control:<inc>        list        ids whose runs an incarnation's parent is to stop; expires after a minute
suspects:<queue>     list        ids that must run alone, since a process may have died under them
schedule             sorted set  id by due time (ms; and a half if that is an eta)
processing:<inc>     hash        id → ``[!]<taken at, ms> <queue>`` (``!``: taken from suspects), then the gates
                                 that its end frees and its lock (``*lock``), a line each
dead:<queue>         sorted set  id by time of death (ms)
reasons              hash        id of a dead letter → reason, newline, detail (opaque)
crashes              hash        id → counted deaths of its process; only where there were any
leases               sorted set  incarnation by end of its lease (ms)
name:<worker>        string      which of the workers with that name said last that it lives; expires after minutes
terms                sorted set  incarnation by the length of its lease (ms)
calls                hash        incarnation → number of its last call (and a half: see ``sync.lua``)
workers              hash        incarnation → what it is (msgpack; see ``taskq.views.workers``)
sets                 hash        set of queues → its queues, joined by spaces
serving              hash        queue → the sets that serve it, joined by spaces
runs                 hash        set of queues → what the lanes of its workers run, a line each: their set, their tasks
fleet                hash        worker's id → how it is (msgpack; see ``taskq.views.workers``)
fleet-ends           sorted set  worker's id by the time (ms) until which its word holds
orders:<worker>      list        words for a worker's parent, by the worker's id; expires after a minute
homes                hash        task → queues it has had, between spaces; ``=``: since when ``guests`` is kept (ms)
guests               hash        ``<queue>|<task>`` of messages sent to another queue than their task's → 1
strays               hash        ``<queue>|<task>`` that no live worker serves and knows → since and seen last (ms)
set-leases           sorted set  set by the time until which some worker serves it (ms)
ready:<set>          sorted set  queues that have something to take, by time (ms) or by turn (see ``lib/shares.lua``)
spent:<set>          hash        queue → worker time its messages took (ms over its weight); ``*``: the least served
bell:<set>           list        at most a token: wake up and fetch
solo:<set>           sorted set  queues that have suspects, by time (ms)
solo-bell:<set>      list        at most a token, for the workers' parents
alarm                list        at most a token: the earliest due time has changed
keeper               string      who keeps the time of the schedule, and until when (ms); expires
pulse                string      time of the last renewal or reaping (ms)
result:<id>          string      outcome of a task; expires after ``result_ttl``
scarce               string      memory is scarce, so results are not kept; expires after half a minute
waiters              hash        id → inboxes of the processes that wait for it
inbox:<process>      list        results for a waiting process; expires after a minute
periodic             hash        entry's name → periodic entry (see ``taskq.periodic.entry``)
ticks                sorted set  entry's name by the time its next tick is due (ms); not of those that are paused
entry:<name>         hash        tick (next, ms; none yet: new), last (ms), id (its message), sent, skipped, left-out,
                                 full (ticks that found their queue so), waits (when one that does was due, ms),
                                 late and late-max (ms), origin (code, command), paused (by whom, when, why)
declared             hash        ``-A`` of workers → names of the entries their newest code declares, between spaces
revisions            hash        ``-A`` of workers → revisions of their code, the newest last
producer:<id>        string      number, answer and first id of a producer's last call; expires after an hour
counters             hash        ``<queue>|<counter>`` → number (the ledger)
minute:<n>           hash        ``counters`` at the last upkeep (1) and the one before (2); ``=``: when that was (ms)
audit                string      what the last audit has found (msgpack; see ``taskq.views.audits``)
audited              string      an audit was made lately; expires after a minute
published            hash        task, ``=`` (the settings) or ``@<-A>`` (its periodic entries) → since when it is so,
                                 in ms: of workers that announce otherwise the one started last is right
settings             hash        windows and limits for scripts, ``name`` or ``name:<task>`` → number; in partition 0
                                 also ``partitions``, how many there are, if there are several
===================  ==========  ===================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

APPS = b"tq:apps"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one partition of an app; and all partitions of an app that has only this one (``topology.py``)."""

    app: str
    partition: int = 0

    @property
    def all(self) -> tuple[Keys, ...]:
        """The partitions of the app."""
        return (self,)

    @property
    def first(self) -> Keys:
        """The partition that has what is of the app as a whole."""
        return self

    def of(self, _queue: str) -> Keys:
        """Return the partition of a queue."""
        return self

    def places(self, _raw_id: bytes) -> tuple[Keys, ...]:
        """Return the partitions where a message of that id may be, the likeliest first."""
        return (self,)

    @property
    def prefix(self) -> bytes:
        """The common prefix; the one key every script is given."""
        return b"tq:{%s:%d}:" % (self.app.encode(), self.partition)

    def __getitem__(self, name: str) -> bytes:
        """Return the key of that name, for example ``keys["bell:" + set_id]``."""
        return self.prefix + name.encode()
