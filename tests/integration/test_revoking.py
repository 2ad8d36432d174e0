"""Revoking what runs: the task is told, and stopped if it does not listen; nothing else is touched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import ModuleType

import pytest

from taskq import ConfigError, TaskError, TaskRevoked
from taskq.broker.call import Command
from taskq.worker.parent.revocations import REVOKE_GRACE, Revocations
from taskq.worker.seats import SeatTable, digest
from tests.support import Start, Write, survey, wait_until

#: A child that has just begun is told of a revocation by its parent's next renewal.
TOLD_SOON = "lease=6"

JOBS = """
import threading, taskq
HERE = os.path.dirname(os.path.abspath(__file__))

def note(text):
    with open(os.path.join(HERE, "notes.log"), "a") as file:
        file.write(text + "\\n")

def lasting(seconds, how):
    note("began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except taskq.TaskRevoked:
            note("told")
            if how == "returns":
                return "mine"
            if how == "raises":
                raise ValueError("another error")
            if how == "ends":
                raise
    return "slept"

@app.task(autoretry_for=(Exception,), default_retry_delay=0, max_retries=5)
def sync(seconds=30, how="ends"):
    return lasting(seconds, how)

@app.task(pool="thread", autoretry_for=(Exception,), default_retry_delay=0, max_retries=5)
def thread(seconds=30, how="ends"):
    return lasting(seconds, how)

@app.task(autoretry_for=(Exception,), default_retry_delay=0, max_retries=5)
async def coroutine(seconds=30, how="ends"):
    note("began")
    try:
        await asyncio.sleep(seconds)
    except taskq.TaskRevoked:
        note("told")
        await asyncio.sleep(0)  # a task may tidy up
        if how == "returns":
            return "mine"
        if how == "raises":
            raise ValueError("another error")
        if how == "ignores":
            await asyncio.sleep(seconds)
        raise

@app.task
def beside(value, seconds=0):
    note(f"beside {value}")
    time.sleep(seconds)
    return value

@app.task
async def acatch():
    loop = asyncio.get_running_loop()
    broken = loop.create_future()
    loop.call_later(0.01, broken.set_exception, KeyError("what it waited for failed"))
    try:
        await broken
    except KeyError:
        return "caught"

@app.task(pool="thread")
def neighbour():
    note("neighbour")
    if open(os.path.join(HERE, "notes.log")).read().count("neighbour") == 1:
        time.sleep(60)
    return "slept"

@app.task
def crash_once(how):
    name = os.path.join(HERE, "crashed")
    if not os.path.exists(name):
        open(name, "w").close()
        os._exit(9)
    note("began")
    if how == "suspect":
        try:
            time.sleep(30)
        except taskq.TaskRevoked:
            note("told")
            raise
"""
KINDS = ["sync", "thread", "coroutine"]


def notes(folder: Path) -> list[str]:
    path = folder / "notes.log"
    return path.read_text().splitlines() if path.exists() else []


def marks(module: ModuleType) -> int:
    """How many ids are marked as revoked."""
    keys = module.app.client.keys
    return int(module.app.client.broker.run(Command(None, [b"HLEN", keys["revoked"]], int)))


def check_revoked(module: ModuleType, task: str) -> None:
    """The one message of a task has ended for good, in the ledger too, and left no mark."""
    ledger = survey(module.app)[f"jobs.{task}"]
    assert ledger.counters["done"] == 1
    assert ledger.balance == 0
    assert (ledger.pending, ledger.scheduled, ledger.processing, ledger.dead, ledger.suspects) == (0, 0, 0, 0, 0)
    assert marks(module) == 0


@pytest.mark.parametrize("how", ["ends", "raises"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_running_task_is_told_and_never_runs_again(
    kind: str, how: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    """Its policy would retry whatever it raises."""
    module = jobs(JOBS, settings=TOLD_SOON)
    worker = start_worker("-c", "1")
    result = getattr(module, kind).delay(how=how)
    wait_until(lambda: notes(tmp_path) == ["began"], "it runs")

    assert result.revoke("a mistake") == "running"

    with pytest.raises(TaskRevoked, match="revoked: a mistake"):
        result.get(timeout=30)
    assert result.state == "REVOKED"
    assert module.beside.delay(1).get(timeout=30) == 1
    assert notes(tmp_path) == ["began", "told", "beside 1"]
    check_revoked(module, kind)
    assert worker.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_returns_all_the_same_has_its_value(
    kind: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    start_worker("-c", "1")
    result = getattr(module, kind).delay(how="returns")
    wait_until(lambda: notes(tmp_path) == ["began"], "it runs")

    result.revoke()

    assert result.get(timeout=30) == "mine"
    check_revoked(module, kind)


@pytest.mark.parametrize("kind", ["sync", "coroutine"])
def test_a_task_that_does_not_listen_is_killed_and_its_neighbours_are_returned(
    kind: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    worker = start_worker("-c", "1")
    result = getattr(module, kind).delay(how="ignores")
    wait_until(lambda: notes(tmp_path) == ["began"], "it runs")
    neighbours = [module.neighbour.delay()] if kind == "coroutine" else []
    wait_until(lambda: notes(tmp_path).count("neighbour") == len(neighbours), "they run")

    assert result.revoke("a mistake") == "running"

    with pytest.raises(TaskRevoked, match="revoked: a mistake"):
        result.get(timeout=REVOKE_GRACE + 20)
    assert "is killed: a task still runs 5 s after it was revoked" in worker.log
    assert module.beside.delay(1).get(timeout=30) == 1
    for neighbour in neighbours:
        assert neighbour.get(timeout=30) == "slept"
    assert notes(tmp_path).count("neighbour") == 2 * len(neighbours)
    assert notes(tmp_path).count("began") == 1
    assert notes(tmp_path).count("told") == 1
    check_revoked(module, kind)
    if neighbours:
        assert survey(module.app)["jobs.neighbour"].counters.get("crashes", 0) == 0


def test_a_message_in_the_hands_of_a_worker_that_has_not_begun_is_not_run(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    results = module.beside.delay_many([(i, 0.5) for i in range(6)])
    start_worker("-c", "1")
    wait_until(lambda: "beside 0" in notes(tmp_path), "the first one runs")

    answers = {result.revoke() for result in results[2:]}

    assert answers <= {"revoked", "running"}
    assert [result.get(timeout=30) for result in results[:2]] == [0, 1]
    for result in results[2:]:
        with pytest.raises(TaskRevoked):
            result.get(timeout=30)
    wait_until(lambda: marks(module) == 0, "no mark is left")
    assert notes(tmp_path) == ["beside 0", "beside 1"]
    assert survey(module.app)["jobs.beside"].balance == 0


def test_a_suspect_that_runs_alone_is_told_as_well(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    start_worker("-c", "1")
    result = module.crash_once.delay("suspect")
    wait_until(lambda: notes(tmp_path) == ["began"], "it runs again, alone")

    assert result.revoke() == "running"

    with pytest.raises(TaskRevoked):
        result.get(timeout=30)
    assert notes(tmp_path) == ["began", "told"]
    check_revoked(module, "crash_once")


def test_what_ran_in_a_lost_worker_is_not_run_by_another(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS, settings="lease=1")
    first = start_worker("-c", "1")
    result = module.sync.delay(how="ignores")
    wait_until(lambda: notes(tmp_path) == ["began"], "it runs")
    first.process.send_signal(19)  # it hears of nothing any more
    assert result.revoke("too late") == "running"
    first.kill_group()

    start_worker("-c", "1")

    with pytest.raises(TaskRevoked, match="too late"):
        result.get(timeout=30)
    assert notes(tmp_path).count("began") == 1
    check_revoked(module, "sync")


def test_the_error_of_what_a_coroutine_waits_for_is_its_own_to_catch(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    start_worker("-c", "1")

    assert module.acatch.delay().get(timeout=30) == "caught"


def test_a_task_that_raises_the_error_itself_has_failed(jobs: Write, start_worker: Start) -> None:
    module = jobs("""
        import taskq
        @app.task
        def confused():
            raise taskq.TaskRevoked("that was another one")
        """)
    start_worker("-c", "1")

    with pytest.raises(TaskError, match="that was another one"):
        module.confused.delay().get(timeout=30)
    assert survey(module.app)["jobs.confused"].dead == 1


def test_a_child_is_told_once_and_again_while_the_task_runs() -> None:
    seat = SeatTable(1, [8]).of(0)[0]
    seat.clear()
    seat.begin("0123456789abcdef", time.monotonic())
    revocations = Revocations()
    assert not revocations.pending(0.0)
    revocations.hear("0123456789abcdef", b"an id of another length")
    assert revocations.pending(1.0)

    assert revocations.look(seat, 1.0) == (True, set())  # on its way, or in the buffer
    revocations.forget(1.0)
    assert revocations.look(seat, 2.0) == (False, set())
    index = seat.enter(b"an id of another length")
    assert seat.revoked() == {index}
    assert revocations.look(seat, 3.0) == (True, set())
    assert revocations.look(seat, 1.0 + REVOKE_GRACE) == (True, {digest(b"an id of another length")})
    revocations.forget(1.0 + REVOKE_GRACE)
    assert not revocations.pending(9.0)


def test_all_of_a_task_a_queue_or_a_header_are_revoked_at_once(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings=TOLD_SOON)
    module.app.pause("jobs.beside")
    ours = [module.beside.apply_async((i,), headers={"tenant": 7, "odd": i % 2}) for i in range(250)]
    module.beside.apply_async((0,), headers={"tenant": "7"})
    plain, later = module.beside.delay(1), module.beside.apply_async((2,), countdown=900)
    other = module.sync.apply_async((), {"how": "ends"}, queue="other", headers={"tenant": 7})
    start_worker("-c", "1", "-Q", "other")
    wait_until(lambda: notes(tmp_path) == ["began"], "one runs")

    assert module.app.revoke_all(task=module.beside, headers={"tenant": 7, "odd": 1}, reason="gone") == 125
    assert module.app.revoke_all(headers={"tenant": 7}) == 126
    assert module.app.revoke_all(queue="other") <= 1
    with pytest.raises(TaskRevoked, match="gone"):
        ours[1].get(timeout=5)
    with pytest.raises(TaskRevoked):
        other.get(timeout=30)
    assert {plain.state, later.state} == {"PENDING"}

    async def all_of_it() -> int:
        revoked = await module.app.arevoke_all(task="jobs.beside")
        await module.app.aclose()
        return revoked  # type: ignore[no-any-return]

    assert asyncio.run(all_of_it()) == 3
    wait_until(lambda: module.app.revoke_all(task="jobs.sync") == 0, "nothing is left")
    ledger = survey(module.app)
    assert (ledger["jobs.beside"].counters["discarded"], ledger["jobs.beside"].balance) == (253, 0)
    with pytest.raises(ConfigError, match="say what to revoke"):
        module.app.revoke_all()
