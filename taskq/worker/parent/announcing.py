"""What a worker tells the server about its code, for all: settings, tasks and limits, periodic entries, the app.

It is said at the start, before anything runs, and again every minute: the server's memory may have been emptied since,
or replaced by an older copy. Saying it again changes nothing if nothing was lost. If workers differ, the one that was
started last is right, so a deploy may take its time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from taskq.broker.call import Command
from taskq.broker.commands import announcing, ticking
from taskq.broker.patience import persist, persistent
from taskq.broker.protocol import Protocol
from taskq.broker.topology import agree
from taskq.errors import BrokerFull
from taskq.periodic.entry import code_revision
from taskq.views.timetable import entries_by_partition
from taskq.worker.plan import Plan, publications, settings_for_scripts

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Seconds after which it is said again.
ANNOUNCE_EVERY = 60.0


class Announcement:
    """What one worker announces.

    Attributes:
        since: When it was announced first, by the server's clock; None before.
    """

    def __init__(self, app: TaskQ, plan: Plan) -> None:
        """Prepare what is said of ``app``'s code by the worker of this plan."""
        self.since: int | None = None
        self._partitions = app.client.partitions
        self._where = app.client.broker.where
        self._source = plan.app_path
        self._name, self._token = plan.name, plan.id
        self._settings = settings_for_scripts(app.settings, app.tasks)
        self._tasks = publications(app.tasks)
        self._sets, self._homes = plan.sets, {task.name: task.queue for task in app.tasks.values()}
        entries = {name: entry.stored for name, entry in app.entries.items()}
        self._entries = entries_by_partition(self._partitions, entries)
        self._revision = code_revision(entries, plan.tasks)

    def make(self, patience: float | None = 0.0) -> Protocol[None]:
        """Say it, or say it again in case it was lost. Tries for ``patience`` seconds (None: for ever).

        Raises:
            BrokerError: The server did not answer for so long, or refuses.
        """
        again = self.since is not None

        def ask(command: Command[T]) -> Protocol[T]:
            return persist(command, self._where, patience)

        yield from persistent(agree(self._partitions, self._where, again), self._where, patience)
        changed = restored = 0
        missing = False
        for keys in self._partitions.all:
            yield from ask(announcing.enlist(keys, self._sets, self._homes))  # before there are tasks: see enlist.lua
            published = yield from ask(announcing.publish_tasks(keys, self._tasks, self._settings, self.since))
            self.since = published.since
            entries = self._entries[keys]
            declared = yield from ask(
                ticking.declare(keys, self._source, self._revision, entries, force=False, announced=self.since)
            )
            lost = sum(what == "restored" for what in declared.entries.values())
            if again and (published.changed or lost or declared.code == "new"):
                missing = True
                changed, restored = changed + published.changed, restored + (lost or len(declared.entries))
            if not again:
                self._tell(declared)
        if missing:
            log.warning(
                "the server had lost what this worker announced (was it emptied, or restored from an older copy?): "
                "%d settings and tasks and %d periodic entries are in force again; what was only there (pauses, limits "
                "and entries set by command) is not", changed, restored,
            )  # fmt: skip
        try:  # plain commands, which a full server refuses
            first = self._partitions.first
            yield from ask(announcing.announce_app(first))
            last = yield from ask(announcing.claim_name(first, self._name, self._token, 3 * ANNOUNCE_EVERY))
        except BrokerFull:
            if not again:
                log.warning("the server is full: a reaper apart does not hear of this app before there is room")
            return
        if again and last not in ("", self._token):
            log.warning(
                "another live worker has the name %s as well: logs and tables cannot tell them apart. Give each its "
                "own with -n, or none", self._name,
            )  # fmt: skip

    def _tell(self, declared: ticking.Declared) -> None:
        """Say what the declaration of the periodic entries changed."""
        for name, what in declared.entries.items():
            if declared.code == "new" or what == "restored":
                log.info("periodic entry %s is %s", name, what)
            elif declared.code == "same":
                log.info("periodic entry %s is not as the code has it: it was changed by command", name)
        if declared.code == "old" and declared.entries:
            log.warning(
                "periodic entries stay as newer code declares them, not as this code does: %s. If this is the newest: "
                "taskq cron sync -A %s", ", ".join(declared.entries), self._source,
            )  # fmt: skip
