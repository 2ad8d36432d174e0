"""Workers to be hurt, tasks that keep a journal of their runs, and what must be true in the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from taskq.broker.call import Command
from taskq.message.ids import id_to_text
from tests.support import Worker, survey, wait_until

#: Each run leaves a line at its start and at its end, written in one piece, in a file that outlives the process.
JOBS = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "journal"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def note(word, i):
    os.write(LOG, f"{word} {i} {os.getpid()}\\n".encode())

@app.task
def work(i, seconds=0.0):
    note("start", i)
    time.sleep(seconds)
    note("end", i)
    return i

@app.task
async def awork(i, seconds=0.0):
    note("start", i)
    await asyncio.sleep(seconds)
    note("end", i)
    return i
"""


class Journal:
    """What the tasks have written so far.

    Attributes:
        starts: By message, the processes in which it was started.
        ends: By message, how often it came to its end.
        pids: By process, how many it has started.
        doomed: Processes that a task has taken along.
        passes: In order, who went ``in`` or ``out`` where so many may be at once: word, gate, message and process.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self._at = 0
        self.starts: dict[str, list[int]] = {}
        self.ends: Counter[str] = Counter()
        self.pids: Counter[int] = Counter()
        self.doomed: set[int] = set()
        self.passes: list[tuple[str, str, str, int]] = []

    def read(self) -> Journal:
        """Read what is new."""
        if self._path.exists():
            with open(self._path, "rb") as file:
                file.seek(self._at)
                text = file.read()
                self._at += len(text)
            for line in text.decode().splitlines():
                word, i, pid = line.split()
                word, _, gate = word.partition(":")
                if word == "end":
                    self.ends[i] += 1
                elif word == "doomed":
                    self.doomed.add(int(pid))
                elif gate:
                    self.passes.append((word, gate, i, int(pid)))
                else:
                    self.starts.setdefault(i, []).append(int(pid))
                    self.pids[int(pid)] += 1
        return self

    @property
    def started(self) -> int:
        """How many runs were started."""
        return self.read().pids.total()

    @property
    def repeats(self) -> int:
        """How many of them were not the first of their message."""
        return self.started - len(self.starts)

    def crowd(self, but: Callable[[str, int], bool]) -> Counter[str]:
        """The most that were inside of each gate at once since the last call, ``but`` some messages and processes."""
        most, inside = Counter[str](), Counter[str]()
        self.read()
        for word, gate, i, pid in self.passes:
            if not but(i, pid):
                inside[gate] += 1 if word == "in" else -1
                most[gate] = max(most[gate], inside[gate])
        self.passes.clear()
        return most

    def unexplained(self, victims: set[int]) -> dict[str, list[int]]:
        """Messages that were started twice by processes that nobody hurt."""
        self.read()
        return {i: pids for i, pids in self.starts.items() if sum(pid not in victims for pid in pids) > 1}

    def wait_for(self, n: int, seconds: float = 30.0) -> None:
        """Wait until ``n`` runs were started."""
        wait_until(lambda: self.started >= n, f"{n} have started", seconds)


class Fleet:
    """A number of workers, each replaced when it is gone.

    Attributes:
        workers: Those that run, as far as is known.
        victims: Children that were killed, by themselves or with their parents, or stopped.
    """

    def __init__(self, start: Callable[..., Worker], size: int, *options: str, **more: Any) -> None:
        self._start_any, self._options, self._more = start, options, more
        self.victims: set[int] = set()
        self.workers = [self._start(place) for place in range(size)]

    def _start(self, place: int) -> Worker:
        options, more = self.own(place)
        return self._start_any(*self._options, *options, **self._more, **more)

    def own(self, place: int) -> tuple[list[str], dict[str, Any]]:
        """What the worker at a place is given beside what all are: options, and more."""
        return [], {}

    def tend(self) -> None:
        """Start anew those that are gone."""
        for place, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.workers[place] = self._start(place)

    def kill_one(self, chance: random.Random) -> str:
        """Kill a child, a parent or a whole group; answers which."""
        worker = chance.choice(self.workers)
        what = chance.choices(["child", "parent", "group"], [8, 1, 1])[0]
        if what == "child":
            if children := worker.children():
                self.victims.add(victim := chance.choice(children))
                kill(victim)
            return what
        worker.process.send_signal(signal.SIGSTOP)  # it starts no other child between the look and the kill
        self.victims.update(worker.children(surely=True))
        if what == "parent":
            kill(worker.process.pid)
            worker.process.wait()
        else:
            worker.kill_group()
        return what

    def replace(self, place: int) -> int:
        """Stop a worker in order while its successor starts; answers its exit code."""
        gone = self.workers[place]
        wait_until(lambda: gone.children() or gone.process.poll() is not None, "it has started, or gone")
        self.victims.update(gone.children(surely=True))
        gone.process.send_signal(signal.SIGTERM)
        self.workers[place] = self._start(place)
        gone.process.send_signal(signal.SIGCONT)

        def has_ended() -> bool:
            self.victims.update(gone.children(surely=True))  # it may have been starting one when it was told
            return gone.process.poll() is not None

        wait_until(has_ended, "it has stopped", 30.0)
        return gone.process.wait()

    @property
    def logs(self) -> list[str]:
        """What they wrote, for a failed assertion."""
        return [worker.log for worker in self.workers]


def each_by_its_url(module: ModuleType) -> ModuleType:
    """Let each worker on the module take the URL it is started with, while this process keeps its own."""
    path = Path(module.__file__ or "")
    path.write_text(path.read_text().replace(repr(module.app.client.url), 'os.environ["TASKQ_URL"]'))
    return module


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def raw(module: ModuleType, *words: Any) -> Any:
    """Run a plain command."""
    return module.app.client.broker.run(Command(None, list(words), lambda reply: reply))


def nap(seconds: float) -> None:
    """Let time pass in which others do something."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "a while", seconds + 5)


def check_idle(module: ModuleType) -> None:
    """Everything accepted has ended once, as a success."""
    for name, ledger in wait_until_idle(module).items():
        assert ledger.balance == 0, (name, ledger)
        assert ledger.counters["done"] == ledger.counters["accepted"], (name, ledger)
    assert raw(module, b"HLEN", module.app.client.keys["messages"]) == 0


def wait_until_idle(module: ModuleType, seconds: float = 10.0) -> dict[str, Any]:
    """Wait until nothing waits or runs; answers the ledger."""
    try:
        wait_until(lambda: not busy_queues(module), "nothing waits or runs", seconds)
    except AssertionError:
        print("\n".join(left_over(module)))
        raise
    return survey(module.app)


def busy_queues(module: ModuleType) -> dict[str, Any]:
    """The queues of which something waits or runs."""
    found = survey(module.app).items()
    return {name: q for name, q in found if q.pending or q.suspects or q.scheduled or q.gated or q.processing}


def left_over(module: ModuleType) -> list[str]:
    """What is left, and why it does not run."""
    ids = raw(module, b"HKEYS", module.app.client.keys["messages"])[:50]
    queues = [f"{name}: {queue}" for name, queue in busy_queues(module).items()]
    return [*queues, *(f"{id_to_text(id_)}: {module.app.AsyncResult(id_to_text(id_)).why()}" for id_ in ids)]
