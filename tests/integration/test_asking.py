"""``self.retry()`` in a real worker: other queues, other arguments, runs that go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskq import TaskError
from tests.support import Start, Write, survey, wait_until

TASKS = """
from taskq import Context, MaxRetriesExceeded, Limit

def moving(self, queue):
    if self.request.queue != queue:
        self.retry(queue=queue, countdown=0)
    return [self.request.queue, self.request.retries]

async def amoving(self, queue):
    return moving(self, queue)

main = app.task(bind=True, name="main")(moving)
thread = app.task(bind=True, name="thread", pool="thread")(moving)
loop = app.task(bind=True, name="loop")(amoving)
limited = app.task(bind=True, name="limited", max_concurrency=1)(moving)
single = app.task(bind=True, name="single", unique="until_done")(moving)
once = app.task(bind=True, name="once", at_most_once=True)(moving)
ranked = app.task(bind=True, name="ranked", priority=3)(moving)

@app.task(bind=True, default_retry_delay=0.01)
def pages(self, page, last):
    if page < last:
        self.retry(args=(page + 1, last))
    return [page, self.request.retries]

@app.task(bind=True, max_retries=1, default_retry_delay=0.01)
def goes_on(self, fails):
    try:
        self.retry(throw=False)
    except MaxRetriesExceeded:
        return "marked"
    if fails:
        raise OSError("afterwards")
    return "not the result"

@app.task(bind=True, max_retries=0)
def early(self, path, seconds):
    if not os.path.exists(path):
        self.postpone(seconds, why="the file")
    return self.request.retries

@app.task(bind=True, max_retries=0)
def ends(self):
    self.retry(exc=KeyError("at last"))
"""
MOVING = ["main", "thread", "loop", "limited", "single", "once", "ranked"]


@pytest.mark.parametrize("name", MOVING)
def test_a_call_moves_to_the_queue_in_which_it_asks_to_be_retried(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(TASKS)
    start_worker("-c", "2", "-Q", f"slow,{name}")

    assert getattr(module, name).delay("slow").get(timeout=30) == ["slow", 1]
    assert getattr(module, name).delay("slow").get(timeout=30) == ["slow", 1], "its lock and its place are free again"

    books = survey(module.app)
    assert (books[name].counters["moved"], books["slow"].counters["done"]) == (2, 2)
    assert all(book.balance == 0 for book in books.values())


def test_what_moves_waits_for_a_worker_that_serves_the_other_queue(jobs: Write, start_worker: Start) -> None:
    module = jobs(TASKS)
    start_worker("-c", "1", "-Q", "main")
    call = module.main.delay("slow")
    wait_until(lambda: survey(module.app).get("slow") and survey(module.app)["slow"].pending == 1, "it has moved")

    start_worker("-c", "1", "-Q", "slow")

    assert call.get(timeout=30) == ["slow", 1]


def test_another_partition_is_refused_in_the_task(jobs: Write, start_worker: Start) -> None:
    module = jobs("app = TaskQ(app.name, app.settings.url, partitions=4)\n" + TASKS)
    start_worker("-c", "1")
    of = module.app.client.partitions.of
    far = next(queue for queue in ("q0", "q4") if of(queue) != of("main"))

    with pytest.raises(TaskError, match=f"main cannot be retried in queue='{far}'"):
        module.main.delay(far).get(timeout=30)


def test_the_next_run_has_the_arguments_that_were_asked_for(jobs: Write, start_worker: Start) -> None:
    module = jobs(TASKS)
    start_worker("-c", "1")

    assert module.pages.delay(1, 3).get(timeout=30) == [3, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_goes_on_runs_again_and_sees_when_no_retries_are_left(
    fails: bool, jobs: Write, start_worker: Start
) -> None:
    module = jobs(TASKS)
    start_worker("-c", "1")

    assert module.goes_on.delay(fails).get(timeout=30) == "marked"


def test_the_error_that_was_given_ends_it(jobs: Write, start_worker: Start) -> None:
    module = jobs(TASKS)
    start_worker("-c", "1")

    with pytest.raises(KeyError, match="at last"):
        module.ends.delay().get(timeout=30)


def test_a_call_that_is_too_early_says_why_and_runs_when_it_can(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(TASKS)
    start_worker("-c", "1")
    soon, late = (module.early.delay(str(tmp_path / "file"), seconds) for seconds in (0.05, 60))
    wait_until(lambda: "postponed itself 1 time, for the file; due" in late.why(), "it says why")

    (tmp_path / "file").touch()

    assert soon.get(timeout=30) == 0
    books = survey(module.app)["jobs.early"]
    assert (books.counters["postponed"] >= 2, books.balance, books.scheduled) == (True, 0, 1)
