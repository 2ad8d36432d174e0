"""What a worker's parent announces, at its start and every minute after."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.commands import announcing
from taskq.broker.queue_set import QueueSet
from taskq.worker.parent.announcing import Announcement
from taskq.worker.plan import Plan

NONE = QueueSet("", ())
#: Keys that are put back without a word: nothing was out of force for the want of them.
QUIET = ("published", "revisions", "declared", "marks", "homes", "runs", "name:worker")


class Parent:
    """An app's worker as far as it announces."""

    def __init__(self, app: TaskQ, name: str = "worker") -> None:
        self.app = app
        plan = Plan("jobs", name, 1, 1, 1.0, False, QueueSet.of(["jobs.work"]), NONE, NONE)
        self.announcement = Announcement(app, plan)

    def announce(self) -> None:
        self.app.client.broker.drive(self.announcement.make())

    def raw(self, verb: str, *words: Any) -> Any:
        return self.app.client.broker.run(Command(None, [verb, *words], lambda reply: reply))


@pytest.fixture
def parent(app: TaskQ, caplog: pytest.LogCaptureFixture) -> Parent:
    caplog.set_level(logging.INFO)

    @app.periodic("nightly", "0 3 * * *")
    @app.task(name="jobs.work", max_concurrency=1)
    def work() -> None: ...

    return Parent(app)


def test_said_again_to_a_server_that_has_lost_nothing_it_changes_nothing_and_is_not_told(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskq")
    parent.announce()
    assert [record.getMessage() for record in caplog.records] == ["periodic entry nightly is added"]
    caplog.clear()
    parent.announce()
    assert caplog.records == []


def test_said_again_it_puts_back_what_the_server_has_lost_and_says_so(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    parent.announce()
    keys = parent.app.client.keys
    found = parent.raw("KEYS", keys.prefix.replace(b"{", b"[{]") + b"*")
    names = [name for name in found if name not in (keys["alarm"], keys["ticks"])]  # a lost tick is the audit's
    before = {name: parent.raw("TYPE", name) for name in names}
    for lost in [*([name] for name in names), names, [b"tq:apps"]]:
        caplog.clear()
        parent.raw("DEL", *lost)

        parent.announce()

        assert {name: parent.raw("TYPE", name) for name in names} == before, lost
        told = "the server had lost what this worker announced" in caplog.text
        quiet = any(lost == [keys[name]] for name in QUIET)
        assert told != (quiet or lost == [b"tq:apps"]), lost
    assert keys.app in parent.app.client.broker.run(announcing.known_apps())


def test_two_live_workers_of_one_name_are_told_of_each_other(parent: Parent, caplog: pytest.LogCaptureFixture) -> None:
    twin, other = Parent(parent.app), Parent(parent.app, "other")
    for worker in (parent, other, parent):
        worker.announce()
    twin.announce()
    assert "has the name" not in caplog.text, "it may have taken the place of one that is gone"

    parent.announce()
    assert "another live worker has the name worker" in caplog.text
    caplog.clear()
    other.announce()
    assert "has the name" not in caplog.text
    twin.announce()
    assert "another live worker has the name worker" in caplog.text
