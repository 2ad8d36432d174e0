"""Processes killed with SIGKILL: nothing is lost, and every repeat is explained by a kill."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from taskq import TaskError
from taskq.broker.call import Command
from tests.support import SOAK, Server, Start, Write, each_kind, survey, wait_until

#: A busy machine delays everything; how quick recovery is shows on one that has nothing else to do.

# Each run leaves a line, written in one piece, in a file that outlives the process.
LEDGER = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "runs.log"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.task
def work(i, seconds=0.05):
    os.write(LOG, f"start {i} {os.getpid()}\\n".encode())
    time.sleep(seconds)
    os.write(LOG, f"end {i} {os.getpid()}\\n".encode())
    return i

@app.task
def die(how):
    os.write(LOG, f"start {how} {os.getpid()}\\n".encode())
    if how == "kill":
        os.kill(os.getpid(), 9)
    elif how == "exit":
        os._exit(0)
    elif how == "segv":
        import ctypes
        ctypes.string_at(0)

@app.task
async def awork(i, seconds=0.05):
    os.write(LOG, f"start {i} {os.getpid()}\\n".encode())
    await asyncio.sleep(seconds)
    return i
"""


def runs(folder: Path, what: str = "start") -> Counter[str]:
    """How often each message was started (or ended)."""
    path = folder / "runs.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[1] for line in lines if line.startswith(what))


@each_kind
def test_a_childs_message_runs_again_within_a_second(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "1")
    result = module.work.delay(1, seconds=0.5)
    wait_until(lambda: runs(tmp_path)["1"] == 1, "it runs")

    os.kill(worker.children()[0], signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: runs(tmp_path)["1"] == 2, "it runs again", seconds=1.0 if SOAK else 10.0)

    assert result.get(timeout=30) == 1
    assert time.monotonic() - killed < 5
    assert survey(module.app)["jobs.work"].counters["crashes"] == 1


def test_a_whole_workers_messages_run_again_when_its_lease_has_ended(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(LEDGER, settings="lease=2")
    doomed = start_worker("-c", "1")
    result = module.work.delay(1, seconds=0.5)
    wait_until(lambda: runs(tmp_path)["1"] == 1, "it runs")
    start_worker("-c", "1")
    wait_until(lambda: len(module.app.client.broker.run(_leases(module))) == 2, "the other is there")

    doomed.kill_group()
    wait_until(lambda: runs(tmp_path)["1"] == 2, "it runs again", seconds=3.0 if SOAK else 12.0)

    assert result.get(timeout=30) == 1


def _leases(module: ModuleType) -> object:
    return Command(None, [b"ZRANGE", module.app.client.keys["leases"], 0, -1], lambda reply: reply)


@pytest.mark.parametrize("how", ["kill", "exit", "segv"])
def test_poison_is_a_dead_letter_after_three_counted_deaths(
    how: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(LEDGER)
    start_worker("-c", "2")
    others = module.work.delay_many([(i, 0.01) for i in range(100)])

    with pytest.raises(TaskError, match="crashed"):
        module.die.delay(how).get(timeout=30)

    assert [r.get(timeout=30) for r in others] == list(range(100))
    assert runs(tmp_path)[how] == 3
    ledger = survey(module.app)
    assert ledger["jobs.die"].counters["crashes"] == 3
    assert ledger["jobs.die"].dead == 1
    assert ledger["jobs.work"].counters.get("crashes", 0) == 0


def test_coroutines_beside_a_death_are_suspects_and_not_blamed(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "1")
    results = [module.awork.delay(i, 0.3) for i in range(5)]
    wait_until(lambda: len(runs(tmp_path)) == 5, "all run")

    os.kill(worker.children()[0], signal.SIGKILL)

    assert [r.get(timeout=30) for r in results] == list(range(5))
    ledger = survey(module.app)["jobs.awork"]
    assert ledger.counters.get("crashes", 0) == 0
    assert ledger.balance == 0


def test_children_die_with_their_parent(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "2")
    for i in range(2):
        module.work.delay(i, 60.0)
    wait_until(lambda: len(runs(tmp_path)) == 2, "both children are at work")
    children = worker.children()

    worker.process.kill()
    worker.process.wait()

    wait_until(lambda: not any(_alive(pid) for pid in children), "the children are gone", 10)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@each_kind
def test_the_server_is_killed_and_comes_back(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(LEDGER, url=own_server.url, settings="lease=3, send_timeout=20")
    start_worker("-c", "2", url=own_server.url)
    results = [module.work.delay(i, 0.02) for i in range(100)]
    wait_until(lambda: len(runs(tmp_path)) >= 20, "20 have started")

    own_server.kill()
    own_server.start()
    results += [module.work.delay(i, 0.02) for i in range(100, 150)]

    assert [r.get(timeout=30) for r in results] == list(range(150))
    wait_until(lambda: survey(module.app)["jobs.work"].balance == 0, "the ledger balances")
    assert survey(module.app)["jobs.work"].counters["done"] == 150


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_running_tasks_end_and_returns_the_rest(
    number: int, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "1")
    module.work.delay_many([(i, 0.5) for i in range(5)])
    wait_until(lambda: runs(tmp_path)["0"] == 1, "the first runs")

    assert worker.stop(number) == 0, worker.log

    ledger = survey(module.app)["jobs.work"]
    assert runs(tmp_path, "end") == Counter(runs(tmp_path))
    assert ledger.counters["done"] + ledger.pending == 5
    assert ledger.pending >= 3
    assert ledger.counters.get("crashes", 0) == 0


def test_a_second_stop_ends_at_once_and_returns_what_ran(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "1")
    module.work.delay(0, 60)
    module.awork.delay(1, 60)
    wait_until(lambda: len(runs(tmp_path)) == 2, "both run")

    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in worker.log, "it was told")
    assert worker.stop(signal.SIGTERM, seconds=5) == 1, worker.log

    ledger = survey(module.app)
    assert ledger["jobs.work"].pending == 1
    assert ledger["jobs.awork"].pending == 1
    assert ledger["jobs.work"].counters.get("crashes", 0) == 0


def test_grace_bounds_the_stop(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(LEDGER)
    worker = start_worker("-c", "1", "--grace", "0.3")
    module.work.delay(0, 60)
    wait_until(lambda: len(runs(tmp_path)) == 1, "it runs")

    assert worker.stop(signal.SIGTERM, seconds=5) == 1, worker.log

    assert survey(module.app)["jobs.work"].pending == 1


def test_a_slow_task_does_not_hold_what_was_taken_with_it(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(LEDGER)
    module.work.delay_many([(i, 0) for i in range(50)])
    start_worker("-c", "2")
    wait_until(lambda: len(runs(tmp_path)) == 50, "the pace of the queue is known")

    quick = module.app.enqueue_many([module.work.call(100, 20.0), *(module.work.call(i, 0) for i in range(101, 160))])

    began = time.monotonic()
    assert [r.get(timeout=30) for r in quick[1:]] == list(range(101, 160))
    assert time.monotonic() - began < 15, "none waited for the slow one"


def test_an_isolated_child_that_was_stopped_is_fenced_when_it_wakes(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(
        LEDGER
        + """
@app.task
def die_once(seconds):
    first = not os.path.exists(MARK)
    open(MARK, "a").close()
    os.write(LOG, f"start {'first' if first else 'again'} {os.getpid()}\\n".encode())
    if first:
        os.kill(os.getpid(), 9)
    time.sleep(seconds)
    os.write(LOG, f"end again {os.getpid()}\\n".encode())

MARK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mark")
""",
        settings="lease=1",
    )
    stopped = start_worker("-c", "1")
    result = module.die_once.delay(0.5)
    wait_until(lambda: runs(tmp_path)["again"] == 1, "it runs alone")
    start_worker("-c", "1")

    os.killpg(stopped.process.pid, signal.SIGSTOP)
    result.get(timeout=30)
    os.killpg(stopped.process.pid, signal.SIGCONT)

    wait_until(lambda: runs(tmp_path, "end")["again"] == 2, "the stopped one ends its run too")
    wait_until(lambda: "starting anew" in stopped.log, "and finds its lease gone")
    stopped.stop()
    assert "Traceback" not in stopped.log
    assert stopped.log.count("died") == 1, "only the child that was killed"
    ledger = survey(module.app)["jobs.die_once"]
    assert (ledger.counters["done"], ledger.balance) == (1, 0)


def test_a_stopped_worker_leaves_even_if_the_server_has_gone(
    jobs: Write, start_worker: Start, own_server: Server, tmp_path: Path
) -> None:
    module = jobs(LEDGER, url=own_server.url)
    worker = start_worker("-c", "1", "--grace", "0.1", url=own_server.url)
    module.work.delay(1, 60)
    wait_until(lambda: runs(tmp_path)["1"] == 1, "it runs")
    own_server.kill()

    assert worker.stop(seconds=15) == 0
    assert "recovered when its lease has ended" in worker.log


def test_an_idle_worker_leaves_soon_even_if_the_server_has_gone(
    jobs: Write, start_worker: Start, own_server: Server
) -> None:
    module = jobs(LEDGER, url=own_server.url)
    worker = start_worker("-c", "2", "--grace", "600", url=own_server.url)
    clients = Command(None, [b"INFO", b"clients"], lambda reply: reply)
    run = module.app.client.broker.run
    wait_until(lambda: b"blocked_clients:5\r" in run(clients), "two lanes of two children and the parent wait")
    own_server.kill()

    assert worker.stop(seconds=30) == 0, worker.log


def test_a_worker_says_when_the_server_goes_and_when_it_is_back(
    jobs: Write, start_worker: Start, own_server: Server
) -> None:
    module = jobs(LEDGER, url=own_server.url)
    worker = start_worker("-c", "1", url=own_server.url)
    assert module.work.delay(1, 0).get(timeout=30) == 1

    own_server.kill()
    wait_until(lambda: "no lease can be renewed, retrying: " in worker.log, "it says so")
    own_server.start()
    wait_until(lambda: "the server answers again" in worker.log, "it says that too")

    assert worker.log.count("no lease can be renewed") == 1


@pytest.mark.parametrize("task", ["work", "awork"])
def test_what_a_child_takes_while_its_parent_cannot_renew_is_not_stranded(
    task: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(LEDGER, settings="lease=1")
    worker = start_worker("-c", "1", "--async-slots", "4")
    results = getattr(module, task).delay_many([(i, 0.01 if task == "work" else 0.04) for i in range(300)])
    wait_until(lambda: len(runs(tmp_path)) > 20, "they run")

    worker.process.send_signal(signal.SIGSTOP)  # the parent alone; nobody else reaps
    stopped = time.monotonic()
    wait_until(lambda: time.monotonic() - stopped > 1.5, "the lease has ended")
    ledger = survey(module.app)[f"jobs.{task}"]
    wait_until(lambda: time.monotonic() - stopped > 2.0, "it could go on taking")
    later = survey(module.app)[f"jobs.{task}"]
    worker.process.send_signal(signal.SIGCONT)

    assert ledger.pending > 0
    assert later == ledger, "without a lease it takes nothing more"
    assert [r.get(timeout=30) for r in results] == list(range(300))
    assert set(runs(tmp_path).values()) == {1}
    assert survey(module.app)[f"jobs.{task}"].balance == 0


def test_a_broken_event_loop_ends_its_child_and_another_takes_over(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(
        LEDGER
        + """
@app.task
async def break_loop():
    # What a bug of the lane itself would do: an error outside of any task.
    if not os.path.exists(HERE_MARK):
        open(HERE_MARK, "w").close()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
    await asyncio.sleep(0.2)
    return os.getpid()

HERE_MARK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "broken")
"""
    )
    worker = start_worker("-c", "1")
    wait_until(worker.children, "a child runs")
    before = worker.children()

    assert module.break_loop.delay().get(timeout=30) not in before

    assert "the event loop of this child broke" in worker.log
    assert survey(module.app)["jobs.break_loop"].balance == 0
