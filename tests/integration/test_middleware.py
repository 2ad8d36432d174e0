"""Middleware and hooks in a real worker: on every lane, and at the edges where a message could be lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from taskq import TaskError
from tests.support import Start, Write, survey, wait_until

HEAD = """
import functools, signal, threading
from taskq import SoftTimeLimitExceeded, checkpoint

HERE = os.path.dirname(__file__)

def note(text):
    with open(os.path.join(HERE, "notes"), "a") as file:
        file.write(text + "\\n")

def there(name):
    return os.path.exists(os.path.join(HERE, name))

def on_main(request):
    return "main" if threading.current_thread() is threading.main_thread() else "beside"
"""

LANES = """
@app.around("run")
def around(request, call_next):
    note(f"around {request.task} {on_main(request)}")
    return [request.headers.get("tenant"), call_next()]

@app.around("arun")
async def aaround(request, call_next):
    note(f"around {request.task} {on_main(request)}")
    await asyncio.sleep(0)
    return [request.headers.get("tenant"), await call_next()]

@app.around("enqueue")
def stamp(call, call_next):
    call.headers["tenant"] = "acme"
    return call_next()

@app.on("success")
def succeeded(request, value):
    note(f"{request.task} succeeded {value} {on_main(request)}")

@app.on("success")
async def succeeded_async(request, value):
    await asyncio.sleep(0)
    note(f"{request.task} async hook")

@app.task(name="plain")
def plain(x):
    return x

@app.task(name="patient", pool="thread")
def patient(x):
    return x

@app.task(name="coroutine")
async def coroutine(x):
    await asyncio.sleep(0)
    return x

@app.task(name="quiet", ignore_result=True)
def quiet(x):
    return x
"""


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_every_lane_runs_tasks_inside_middleware_and_tells_hooks(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HEAD + LANES)
    names = ("plain", "patient", "coroutine")
    tasks = [getattr(module, name) for name in names]
    assert [task.apply((1,)).get() for task in tasks] == [["acme", 1]] * 3
    (tmp_path / "notes").unlink()

    start_worker("-c", "1")

    assert [task.delay(5).get(timeout=30) for task in tasks] == [["acme", 5]] * 3
    assert [handle.get(timeout=30) for handle in module.plain.delay_many(range(5))] == [["acme", n] for n in range(5)]
    module.quiet.delay(7)
    wait_until(lambda: len(notes(tmp_path)) == 27, "all notes are there")
    seen = notes(tmp_path)
    for name, where in zip(names, ("main", "beside", "beside"), strict=True):
        assert f"around {name} {where}" in seen
        assert f"{name} succeeded ['acme', 5] {where}" in seen
        assert f"{name} async hook" in seen
    assert "quiet succeeded [None, 7] main" in seen or "quiet succeeded ['acme', 7] main" in seen
    assert sum("plain async hook" in line for line in seen) == 6


ENDS = """
for event in ("success", "failure", "retry", "dead"):
    def hook(request, subject, event=event):
        note(f"{request.task} {event} {request.retries} {type(subject).__name__}")
    app.on(event)(hook)

def again(x=None):
    if not there("ran"):
        open(os.path.join(HERE, "ran"), "w").close()
        raise OSError("once")
    return x

def fails(x=None):
    raise ValueError("always")

async def aagain(x=None):
    return again(x)

async def afails(x=None):
    return fails(x)

retrying = {"autoretry_for": OSError, "default_retry_delay": 0.01}
tasks = {
    ("again", "main"): app.task(name="again.main", **retrying)(again),
    ("again", "thread"): app.task(name="again.thread", pool="thread", **retrying)(again),
    ("again", "loop"): app.task(name="again.loop", **retrying)(aagain),
    ("fails", "main"): app.task(name="fails.main")(fails),
    ("fails", "thread"): app.task(name="fails.thread", pool="thread")(fails),
    ("fails", "loop"): app.task(name="fails.loop")(afails),
    ("once", "main"): app.task(name="once.main", at_most_once=True, dead_letter=False)(fails),
    ("once", "loop"): app.task(name="once.loop", at_most_once=True, dead_letter=False)(afails),
}
"""


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_retries_failures_and_dead_letters_are_told_on_every_lane(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    module = jobs(HEAD + ENDS)
    start_worker("-c", "1", "-Q", f"again.{lane},fails.{lane},once.{lane}")

    assert module.tasks["again", lane].delay(3).get(timeout=30) == 3
    with pytest.raises(TaskError, match="always"):
        module.tasks["fails", lane].delay().get(timeout=30)
    wanted = [f"again.{lane} retry 0 OSError", f"again.{lane} success 1 int"]
    wanted += [f"fails.{lane} failure 0 ValueError", f"fails.{lane} dead 0 ValueError"]
    if lane != "thread":
        with pytest.raises(TaskError, match="always"):
            module.tasks["once", lane].delay().get(timeout=30)
        wanted.append(f"once.{lane} failure 0 ValueError")
    wait_until(lambda: len(notes(tmp_path)) >= len(wanted), "all hooks have been called")
    assert notes(tmp_path) == wanted
    assert survey(module.app)[f"fails.{lane}"].dead == 1


UNREADABLE = """
@app.on("dead")
def dead(request, error):
    note(f"{request.id} {request.task} {request.queue} {type(error).__name__}: {error}")

@app.task(name="main.t")
def t(x: int): ...

@app.task(name="loop.t")
async def at(x: int): ...
"""


@pytest.mark.parametrize("lane", ["main", "loop"])
def test_a_dead_letter_that_never_ran_is_told_with_what_is_known_of_it(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    """A newer producer's task, of which no worker has heard for too long; and arguments that its task does not take."""
    module = jobs(HEAD + UNREADABLE, settings="unknown_after=0")
    other = type(module.app)(module.app.name, module.app.settings.url)
    newer = other.task(name="newer", queue=f"{lane}.t")(lambda x: None)
    changed = other.task(name=f"{lane}.t")(lambda a, b: None)
    first, second = newer.delay(1).id, changed.delay(1, 2).id

    start_worker("-c", "1")

    wait_until(lambda: len(notes(tmp_path)) == 2, "both are told")
    told = dict(line.split(" ", 1) for line in notes(tmp_path))
    assert told[first].startswith(f"newer {lane}.t DecodeError: no worker has known the task 'newer'")
    assert told[second].startswith(f"{lane}.t {lane}.t TypeError")
    other.close()


INSIDE = """
@app.around("run")
def around(request, call_next):
    try:
        if request.headers.get("waits"):
            time.sleep(60)
        return call_next()
    except SoftTimeLimitExceeded:
        note("the limit was raised in middleware")
        raise
    except Exception as error:
        note(f"an Exception: {type(error).__name__}")
        raise

@app.around("arun")
async def aaround(request, call_next):
    try:
        if request.headers.get("waits"):
            await asyncio.sleep(60)
        return await call_next()
    except SoftTimeLimitExceeded:
        note("the limit was raised in middleware")
        raise
    except Exception as error:
        note(f"an Exception: {type(error).__name__}")
        raise

def until_told(x=None):
    note("runs")
    while True:
        time.sleep(0.01)
        checkpoint()

async def auntil_told(x=None):
    note("runs")
    while True:
        await asyncio.sleep(0.01)
        checkpoint()

LIMITS = {"soft_time_limit": 0.2}
limited = {
    "main": app.task(name="limited.main", **LIMITS)(lambda: None),
    "thread": app.task(name="limited.thread", pool="thread", **LIMITS)(lambda: None),
    "loop": app.task(name="limited.loop", **LIMITS)(auntil_told),
}
stopped = {
    "main": app.task(name="stopped.main")(until_told),
    "thread": app.task(name="stopped.thread", pool="thread")(until_told),
    "loop": app.task(name="stopped.loop")(auntil_told),
}
"""


@pytest.mark.parametrize("lane", ["main", "loop"])
def test_a_soft_time_limit_counts_in_middleware_too(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    module = jobs(HEAD + INSIDE)
    start_worker("-c", "1")

    with pytest.raises(TaskError, match="SoftTimeLimitExceeded"):
        module.limited[lane].apply_async(headers={"waits": True}).get(timeout=30)
    assert notes(tmp_path) == ["the limit was raised in middleware"]


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_a_stop_and_a_revocation_pass_through_middleware(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    module = jobs(HEAD + INSIDE)
    worker = start_worker("-c", "1")
    revoked = module.stopped[lane].delay()
    wait_until(lambda: notes(tmp_path) == ["runs"], "it runs")

    module.app.revoke(revoked.id)
    wait_until(lambda: revoked.state == "REVOKED", "it is revoked")
    wait_until(lambda: len(notes(tmp_path)) == 2, "its middleware has seen why")
    assert notes(tmp_path)[1] == "an Exception: Revoked"

    module.stopped[lane].delay()
    wait_until(lambda: len(notes(tmp_path)) == 3, "the next one runs")
    worker.stop()
    assert notes(tmp_path)[2:] == ["runs"], "ShuttingDown is no Exception"
    assert survey(module.app)[f"stopped.{lane}"].pending == 1


HANGS = """
@app.on("success")
def hang(request, value):
    note(f"hook of {value}")
    while there("hang"):
        time.sleep(0.01)

@app.task(name="main.t")
def t(x):
    return x

@app.task(name="once.t", at_most_once=True)
def once(x):
    return x

@app.task(name="thread.t", pool="thread")
def threaded(x):
    return x

@app.task(name="loop.t")
async def at(x):
    return x

tasks = {"main": t, "once": once, "thread": threaded, "loop": at}
"""


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9"])
@pytest.mark.parametrize("lane", ["main", "once", "thread", "loop"])
def test_a_hook_that_hangs_keeps_no_message_and_no_stop(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str, end: str
) -> None:
    """What the run has come to is settled while the hook lasts, so its death changes nothing of it."""
    module = jobs(HEAD + HANGS)
    (tmp_path / "hang").touch()
    worker = start_worker("-c", "1", "--grace", "0.5")
    task = module.tasks[lane]

    assert task.delay(1).get(timeout=30) == 1
    wait_until(lambda: notes(tmp_path) == ["hook of 1"], "the hook hangs")
    if end == "SIGTERM":
        assert worker.stop(seconds=20) == 0, "no task was interrupted"
        (tmp_path / "hang").unlink()
        start_worker("-c", "1")
    else:
        (tmp_path / "hang").unlink()
        for pid in worker.children():
            os.kill(pid, signal.SIGKILL)
    assert task.delay(2).get(timeout=30) == 2
    wait_until(lambda: len(notes(tmp_path)) == 2, "the next hook is called")
    ledger = survey(module.app)[f"{lane}.t"]
    assert notes(tmp_path) == ["hook of 1", "hook of 2"]
    assert (ledger.counters["done"], ledger.balance, ledger.counters.get("crashes", 0)) == (2, 0, 0)


def test_a_sync_hook_that_blocks_does_not_block_the_loop(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(HEAD + HANGS)
    (tmp_path / "hang").touch()
    start_worker("-c", "1")

    assert module.at.delay(1).get(timeout=30) == 1
    wait_until(lambda: notes(tmp_path) == ["hook of 1"], "the hook hangs")
    assert module.at.delay(2).get(timeout=30) == 2
    (tmp_path / "hang").unlink()


FORKS = """
@app.on("success")
def fork(request, value):
    if os.fork() == 0:
        return
    os.wait()

@app.on("success")
def after(request, value):
    note(f"after {value}")

@app.task(name="main.t")
def t(x):
    return x

@app.task(name="thread.t", pool="thread")
def threaded(x):
    return x
"""


@pytest.mark.parametrize("lane", ["t", "threaded"])
def test_the_twin_of_a_hook_that_forks_goes_no_further(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    module = jobs(HEAD + FORKS)
    start_worker("-c", "1")

    for n in range(3):
        assert getattr(module, lane).delay(n).get(timeout=30) == n
    wait_until(lambda: len(notes(tmp_path)) == 3, "the next hook is called by one of the two")
    assert sorted(notes(tmp_path)) == ["after 0", "after 1", "after 2"]  # in threads, one hook may overtake another


KILLS = """
@app.on("success")
def kill(request, value):
    if not there("killed"):
        open(os.path.join(HERE, "killed"), "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="main.t")
def t(x):
    note("ran")
    return x

@app.task(name="loop.t")
async def at(x):
    note("ran")
    return x
"""


@pytest.mark.parametrize("lane", ["main", "loop"])
def test_a_hook_that_kills_its_process_at_once_costs_a_run_and_no_message(
    jobs: Write, start_worker: Start, tmp_path: Path, lane: str
) -> None:
    """The server may not know yet how the first run ended: it runs again, and is settled once."""
    module = jobs(HEAD + KILLS)
    start_worker("-c", "1")

    assert {"main": module.t, "loop": module.at}[lane].delay(5).get(timeout=30) == 5
    wait_until((tmp_path / "killed").exists, "the hook was called")
    wait_until(lambda: survey(module.app)[f"{lane}.t"].counters.get("done") == 1, "it is settled")
    assert notes(tmp_path) in (["ran"], ["ran", "ran"])
    assert survey(module.app)[f"{lane}.t"].balance == 0


KILLED = """
for event in ("success", "failure", "retry", "dead"):
    def hook(request, subject, event=event):
        note(f"{request.task} {event} {request.args} {request.retries} {subject} {there('hang') and 'hangs'}")
        while there("hang"):
            time.sleep(0.01)
    app.on(event)(hook)

@app.task(name="main.t", time_limit=0.2)
def t(x):
    time.sleep(60)

@app.task(name="loop.t", time_limit=0.2, autoretry_for=Exception, max_retries=1, default_retry_delay=0.01)
async def at(x):
    time.sleep(60)

@app.task(name="pill")
def pill():
    if not there("taken"):
        open(os.path.join(HERE, "taken"), "w").close()
        os._exit(9)
    return "survived"
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_hooks_are_told_by_a_child_of_what_was_killed_at_its_time_limit(
    jobs: Write, start_worker: Start, tmp_path: Path, method: str
) -> None:
    module = jobs(HEAD + KILLED)
    start_worker("-c", "1", env={"TASKQ_START_METHOD": method})

    for task in (module.t, module.at):
        with pytest.raises(TaskError, match="time_limit"):
            task.delay(5).get(timeout=30)
    wait_until(lambda: len(notes(tmp_path)) == 5, "all are told")
    error = "the task ran longer than its time_limit of 0.2 s and was killed False"
    assert notes(tmp_path) == [
        f"main.t failure (5,) 0 {error}", f"main.t dead (5,) 0 {error}", f"loop.t retry (5,) 0 {error}",
        f"loop.t failure (5,) 1 {error}", f"loop.t dead (5,) 1 {error}",
    ]  # fmt: skip


def test_a_hook_that_hangs_there_holds_up_neither_suspects_for_long_nor_a_stop(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HEAD + KILLED)
    (tmp_path / "hang").touch()
    worker = start_worker("-c", "1", "--grace", "0.5")
    with pytest.raises(TaskError, match="time_limit"):
        module.t.delay(5).get(timeout=30)
    wait_until(lambda: notes(tmp_path), "the hook hangs")

    assert module.pill.apply_async().get(timeout=30) == "survived"
    worker.stop(seconds=15)
