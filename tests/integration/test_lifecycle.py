"""Hooks for the life of a worker's processes: in the right process, once, and never in the way of a stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import Start, Write, survey, wait_until

HEAD = """
import signal, threading

HERE = os.path.dirname(__file__)

def note(text):
    with open(os.path.join(HERE, "notes"), "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

def there(name):
    return os.path.exists(os.path.join(HERE, name))

def hang():
    note("hangs")
    while True:
        time.sleep(0.05)

@app.task
def pid(x=None):
    return os.getpid()

@app.task
async def apid(x=None):
    return os.getpid()

@app.task
def pill(x=None):
    if not there("taken"):
        open(os.path.join(HERE, "taken"), "w").close()
        os._exit(9)
    return os.getpid()

@app.task
def forks(x=None):
    if os.fork() == 0:
        return
    os.wait()
"""

ALL = """
for event in ("worker_init", "worker_ready", "child_init", "child_shutdown", "worker_shutdown"):
    def hook(event=event):
        note(event)
    app.on(event)(hook)
"""


def notes(folder: Path) -> list[tuple[int, str]]:
    path = folder / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line.split(" ", 1)[1]) for line in lines]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_is_called_once_in_the_right_process(
    jobs: Write, start_worker: Start, tmp_path: Path, method: str
) -> None:
    """Also in the child that runs a suspect alone and in those that replace others; never in the twin of a task."""
    module = jobs(HEAD + ALL)
    worker = start_worker("-c", "2", env={"TASKQ_START_METHOD": method})
    parent = worker.process.pid

    wait_until(lambda: (parent, "worker_ready") in notes(tmp_path), "it is ready")
    alone = module.pill.delay().get(timeout=30)
    module.forks.delay().get(timeout=30)
    seen = {module.pid.delay().get(timeout=30), module.apid.delay().get(timeout=30), alone}
    wait_until(lambda: (alone, "child_shutdown") in notes(tmp_path), "the isolated child has ended")
    wait_until(lambda: len(worker.children()) == 2, "the one that died is replaced")
    children = set(worker.children())
    wait_until(lambda: {(pid, "child_init") for pid in children} <= set(notes(tmp_path)), "all have begun")
    assert worker.stop() == 0

    told = notes(tmp_path)
    assert len(told) == len(set(told)), "none is called twice"
    assert told[0] == (parent, "worker_init")
    assert told[-1] == (parent, "worker_shutdown")
    assert [event for pid, event in told if pid == parent] == ["worker_init", "worker_ready", "worker_shutdown"]
    begun = {pid for pid, event in told if event == "child_init"}
    assert seen | children <= begun
    ended = {pid for pid, event in told if event == "child_shutdown"}
    assert children | {alone} <= ended <= begun
    assert len(begun - ended) == 1, "the one that died"


def test_errors_are_logged_by_name_and_change_nothing(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    source = """
for event in ("worker_init", "worker_ready", "child_init", "child_shutdown", "worker_shutdown"):
    def broken(event=event):
        raise ValueError(f"{event} is broken")
    app.on(event)(broken)
"""
    module = jobs(HEAD + source + ALL)
    worker = start_worker("-c", "1")

    assert module.pid.delay().get(timeout=30) == worker.children()[0]
    wait_until(lambda: "worker_ready" in {event for _, event in notes(tmp_path)}, "it is ready")
    assert worker.stop() == 0
    events = ["worker_init", "child_init", "worker_ready", "child_shutdown", "worker_shutdown"]
    assert sorted(event for _, event in notes(tmp_path)) == sorted(events)
    for event in events:
        assert f"the hook jobs.broken for {event} failed" in worker.log
        assert f"ValueError: {event} is broken" in worker.log


@pytest.mark.parametrize("event", ["worker_init", "worker_ready", "child_init", "child_shutdown", "worker_shutdown"])
def test_a_hook_that_hangs_does_not_hold_up_a_stop(
    jobs: Write, start_worker: Start, tmp_path: Path, event: str
) -> None:
    module = jobs(HEAD + f'app.on("{event}")(hang)\n')
    worker = start_worker("-c", "1", "--grace", "30")
    if event in ("child_shutdown", "worker_shutdown"):
        module.pid.delay().get(timeout=30)
    else:
        wait_until(lambda: notes(tmp_path), "it hangs")

    worker.stop(seconds=15)

    assert [text for _, text in notes(tmp_path)] == ["hangs"]
    assert worker.children() == []


def test_a_hook_that_hangs_in_the_parent_stops_neither_leases_nor_replacements(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HEAD + 'app.on("worker_ready")(hang)\n', settings="lease=1.5")
    worker = start_worker("-c", "1")
    wait_until(lambda: notes(tmp_path), "it hangs")

    first = module.pid.delay().get(timeout=30)
    os.kill(first, signal.SIGKILL)
    assert module.pid.delay().get(timeout=30) != first
    assert "lease" not in worker.log


def test_a_process_may_refuse_to_begin(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    jobs(HEAD + '@app.on("worker_init")\ndef refuse():\n    raise SystemExit(7)\n')
    worker = start_worker("-c", "1")

    assert worker.process.wait(20) == 7


def test_what_a_child_sets_at_its_start_is_what_every_task_finds(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    """Surroundings are put back after each task: to what the hook has left, not to what was before it."""
    source = """
import contextvars
tenant = contextvars.ContextVar("tenant", default="none")

@app.on("child_init")
def begin():
    os.chdir(os.path.join(HERE, "work"))
    signal.signal(signal.SIGALRM, lambda *_: None)
    tenant.set("acme")

@app.task
def look(x=None):
    return [os.path.basename(os.getcwd()), callable(signal.getsignal(signal.SIGALRM)), tenant.get()]
"""
    (tmp_path / "work").mkdir()
    module = jobs(HEAD + source)
    start_worker("-c", "1")

    for handle in module.look.delay_many(range(40)):
        assert handle.get(timeout=30) == ["work", True, "acme"]


def test_middleware_that_is_around_one_kind_of_tasks_only_is_said(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HEAD + '@app.around("run")\ndef traced(request, call_next):\n    return call_next()\n')
    worker = start_worker("-c", "1")

    module.apid.delay().get(timeout=30)
    assert "not inside jobs.traced, which is around('run') and not around('arun'): jobs.apid" in worker.log


def test_what_a_child_installs_when_it_has_begun_is_refused_by_name(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HEAD + '@app.on("child_init")\ndef late():\n    app.on("success")(print)\n')
    worker = start_worker("-c", "1")

    module.pid.delay().get(timeout=30)
    assert "the hook jobs.late for child_init failed" in worker.log
    assert "on('success') comes too late: the worker has begun" in worker.log


def test_a_draining_worker_calls_them_too(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(HEAD + ALL)
    module.pid.delay()
    worker = start_worker("-c", "1", "--drain")

    assert worker.process.wait(30) == 0
    assert [event for _, event in notes(tmp_path)][-2:] == ["child_shutdown", "worker_shutdown"]
    assert survey(module.app)["jobs.pid"].counters["done"] == 1


RESOURCES = """
def note(text):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes.log"), "a") as file:
        file.write(text + "\\n")

@app.resource
def client():
    note(f"made {os.getpid()}")
    yield os.getpid()
    note(f"closed {os.getpid()}")

@app.resource
async def aclient():
    note(f"amade {os.getpid()}")
    yield os.getpid()
    note(f"aclosed {os.getpid()}")

def use():
    return [client(), os.getpid()]

main = app.task(name="main")(use)
thread = app.task(name="thread", pool="thread")(use)

@app.task(name="loop")
async def loop():
    return [await aclient(), os.getpid()]
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_each_child_makes_a_resource_once_and_closes_it_at_its_end(
    method: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(RESOURCES)
    worker = start_worker("-c", "2", "--start-method", method)

    for name in ("main", "thread", "loop") * 4:
        made_by, ran_in = getattr(module, name).delay().get(timeout=30)
        assert made_by == ran_in
    assert worker.stop(seconds=20) == 0

    notes = (tmp_path / "notes.log").read_text().split("\n")[:-1]
    made = sorted(note.replace("made", "closed") for note in notes if "made" in note)
    assert made == sorted(note for note in notes if "closed" in note)
    assert len(made) == len(set(made)) >= 2
