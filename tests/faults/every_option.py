"""Tasks that have every option between them, calls that have every option, and the ways in which each may end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from taskq import DuplicateCall, QueueFull, TaskQ, TaskRevoked
from taskq.calls.sending import Call
from tests.faults.fleet import JOBS

TASKS = (
    JOBS
    + """
from taskq import Breaker, Limit, RateLimited

def kind(i, **_):
    return f"k{sum(i.encode()) % 3}"

def first_time(i):
    try:
        os.close(os.open(os.path.join(os.path.dirname(__file__), "first-" + i), os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False

def plain(i, seconds=0.0):
    return work.function(i, seconds)

def passing(gate, i, seconds):
    try:
        note("in:" + gate, i)
        return plain(i, seconds)
    finally:
        note("out:" + gate, i)

def declare(name, function=plain, **options):
    def declared(i, seconds=0.0):
        return function(i, seconds)
    declared.__qualname__ = declared.__name__ = name
    globals()[name] = app.task(**options)(declared)

declare("calm")
declare("threaded", pool="thread", show_args=["seconds"])
declare("once", at_most_once=True)
declare("once_threaded", at_most_once=True, pool="thread", queue="jobs.threaded")
declare("fair", fair_by=kind)
declare("weighed", fair_by=kind, fair_weight=lambda i, seconds: len(i) % 3 + 1, priority=3, pool="thread")
declare("sole", lambda i, seconds: passing("sole", i, seconds), max_concurrency=1)
declare("keyed", lambda i, seconds: passing("keyed-" + kind(i), i, seconds), max_concurrency=2, key=kind, pool="thread")
declare("rated", rate="100/s", burst=3)
declare("twice_limited", limits=[Limit(rate="200/s"), Limit(max_concurrency=1, key=kind)], fair_by=kind)
declare("unique", unique="until_done", unique_by=kind)
declare("unique_for", unique="until_done", unique_by=kind, unique_for=0.5, on_duplicate="raise")
declare("until_start", unique="until_start", unique_by=kind, pool="thread")
declare("debounced", debounce=0.5, max_wait=1.5, unique_by=kind)
declare("throttled", throttle=0.1, unique_by=kind)
declare("short", max_length=5)
declare("short_waits", max_length=5, full_timeout=1.0, priority=-5)
declare("silent", ignore_result=True)

def pass_on(what, call_next):
    return call_next()

def fail(request, subject):
    raise RuntimeError("of a hook, which changes nothing")

SURROUNDED = {"around_run": pass_on, "around_enqueue": pass_on, **dict.fromkeys(("on_success", "on_failure"), fail)}
declare("hooked", on_retry=fail, on_dead=fail, **SURROUNDED)
declare("hooked_threaded", pool="thread", **SURROUNDED)

@app.task
async def acalm(i, seconds=0.0):
    return await awork.function(i, seconds)

@app.task(at_most_once=True, max_concurrency=2)
async def aonce(i, seconds=0.0):
    return await awork.function(i, seconds)

@app.task(autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=2, bind=True)
def third_try(self, i, seconds=0.0):
    if self.request.retries < 2:
        raise KeyError(i)
    return i

@app.task
def fails(i, seconds=0.0):
    raise ValueError(i)

@app.task(dead_letter=False)
def fails_for_good(i, seconds=0.0):
    raise ValueError(i)

@app.task
def replayed(i, seconds=0.0):
    if first_time(i):
        raise ValueError(i)
    return i

@app.task(breaker=Breaker(0.5, of=10, pause=0.1))
def broken(i, seconds=0.0):
    if kind(i) == "k0":
        raise ValueError(i)
    return i

@app.task(rate="200/s")
def told(i, seconds=0.0):
    if first_time(i):
        raise RateLimited(0.05)
    return plain(i, seconds)

@app.task(soft_time_limit=0.2)
def soft(i, seconds=0.0):
    time.sleep(0.3 if kind(i) == "k0" else 0.0)
    return i

@app.task(time_limit=0.3)
def hangs(i, seconds=0.0):
    note("doomed", i)
    time.sleep(60)

@app.task
def dies(i, seconds=0.0):
    if first_time(i):
        note("doomed", i)
        os._exit(1)
    return i
"""
)
CALM = ["calm", "acalm"]
#: Those that take their process along, and with it others that run there.
DEADLY = ["hangs", "dies"]
PLAIN = ["work", "awork", "threaded", "once", "once_threaded", "third_try"]
OFTEN = [*PLAIN, "fair", "weighed", "sole", "keyed", "rated", "twice_limited", "aonce", "hooked", "hooked_threaded"]
MERGED = ["unique", "unique_for", "until_start", "debounced", "throttled"]
SHORT = ["short", "short_waits"]
FAILING = ["fails", "fails_for_good", "replayed", "broken", "told", "soft", "silent"]
STORMY = [*OFTEN, *MERGED, *SHORT, *FAILING, *DEADLY]
#: Those that run at most once, and those of which so many may run at once at each of their gates.
ONCE, GATES = ("once", "once_threaded", "aonce"), {"sole": 1, "keyed": 2}
#: A queue that no task has for its own.
URGENT = "urgent"


class Sent(NamedTuple):
    """A call that was accepted: its id, what its task got and is to return, its task, and whether it could expire."""

    id: str
    value: str
    task: str
    expires: bool = False


class Caller:
    """Calls any task with any option. What was accepted is in ``sent``, in the order in which it was."""

    def __init__(self, module: ModuleType, app: TaskQ, name: str) -> None:
        self.module = module
        self.app = app
        self.name = name
        self.sent: list[Sent] = []
        self._chance = random.Random(name)
        self._number = 0

    def call(self, number: int = 1) -> None:
        """Make so many calls, some of them of ten at once."""
        for _ in range(number):
            calls, some = self._choose()
            try:
                self._note(some, self.app.enqueue_many(calls))
            except (QueueFull, DuplicateCall):
                assert some[0].task in ("short", "short_waits", "unique_for")

    async def acall(self, number: int) -> None:
        """Do what `call` does, on an event loop, with some at the same time."""

        async def one() -> None:
            calls, some = self._choose()
            try:
                self._note(some, await self.app.aenqueue_many(calls))
            except (QueueFull, DuplicateCall):
                assert some[0].task in ("short", "short_waits", "unique_for")

        for _ in range(0, number, 5):
            await asyncio.gather(*(one() for _ in range(5)))

    def _note(self, some: list[Sent], handles: list[Any]) -> None:
        self.sent += [one._replace(id=handle.id) for one, handle in zip(some, handles, strict=True)]

    def _choose(self) -> tuple[list[Call], list[Sent]]:
        chance = self._chance
        name = chance.choices([OFTEN, MERGED, SHORT, FAILING, CALM, DEADLY], [60, 12, 6, 12, 6, 1])[0]
        task_name = chance.choice(name)
        task = getattr(self.module, task_name)
        self._number += 1
        value, seconds = f"{self.name}-{self._number}", chance.choice([0.0, 0.0, 0.001, 0.005, 0.05, 0.2])
        if chance.random() < 0.1 and task_name in (*OFTEN, *CALM):
            some = [Sent("", f"{value}-{k}", task_name) for k in range(10)]
            return [task.call(one.value, seconds) for one in some], some
        options = self._options(task_name)
        call = task.prepare_call((value, seconds), **options)
        return [call], [Sent("", value, task_name, "expires" in options)]

    def _options(self, task_name: str) -> dict[str, Any]:
        choices: dict[str, Callable[[], Any]] = {
            "countdown": lambda: self._chance.choice([0.05, 0.1, 0.5]),
            "priority": lambda: self._chance.randint(-100, 100),
            "expires": lambda: self._chance.choice([0.02, 0.2, 2.0]),
            "queue": self._elsewhere,
            "headers": lambda: {"batch": self._chance.randrange(5)},
            "max_retries": lambda: 2,
            "task_id": lambda: f"own-{self.name}-{self._number}",
        }
        if task_name in MERGED:
            del choices["task_id"]  # a series has that of its first call
        if task_name in CALM:
            del choices["queue"]  # nothing else is to run beside them, nor they elsewhere
        names = self._chance.sample(sorted(choices), self._chance.choice([0, 0, 0, 1, 1, 2, 3]))
        if task_name == "debounced" and self._chance.random() < 0.4:
            names.append("queue")  # it moves what waits, if there is something
        return {name: choices[name]() for name in names}

    def _elsewhere(self) -> str:
        return self._chance.choice([URGENT, *(f"jobs.{name}" for name in STORMY)])


def wrong_end(sent: Sent, values: set[str], revoked: bool, end: Any) -> bool:
    """Whether a call must not have ended like that: ``values`` are those of all the calls that are this one."""
    if isinstance(end, TaskRevoked):
        allowed = {"expired"} if sent.expires or sent.task in MERGED else set()
        allowed |= {"revoked"} if revoked else set()
        allowed |= {"superseded"} if sent.task in ("until_start", "unique_for") else set()
        return end.type not in allowed
    if not isinstance(end, Exception):
        return end not in values or sent.task in ("fails", "fails_for_good", "hangs")
    text = f"{getattr(end, 'type', '')}: {end}"
    if "abandoned" in text:
        return sent.task not in ONCE
    if isinstance(end, ValueError):
        return sent.task not in FAILING or sent.value not in text
    if "SoftTimeLimit" in text:
        return sent.task != "soft"
    return "TimeLimitExceeded" not in text or sent.task != "hangs"
