"""Producers of every kind, and an operator who interferes: all of them beside a storm, one round long."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from taskq import TaskQ
from taskq.broker.commands import looking
from taskq.broker.pool import Broker
from taskq.steering import letters as steering
from taskq.views.letters import Filters, Graveyard
from tests.faults.every_option import STORMY, URGENT, Caller, Sent
from tests.faults.fleet import raw
from tests.support import wait_until

#: Messages that may be on their way before producers wait.
MOST = 600

WSGI = """
import json, os
import jobs
from tests.faults.every_option import Caller

caller = None

def application(environ, start_response):
    global caller
    caller = caller or Caller(jobs, jobs.app, f"u{os.getpid()}")  # in a worker that uWSGI has forked
    caller.call(int(environ["QUERY_STRING"]))
    accepted, caller.sent = caller.sent, []
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(accepted).encode()]
"""

POOL = """
import asyncio, json, multiprocessing, os, sys
import jobs
from tests.faults.every_option import Caller

def send(number, on_a_loop):
    caller = Caller(jobs, jobs.app, f"f{os.getpid()}-{os.urandom(4).hex()}")
    asyncio.run(caller.acall(number)) if on_a_loop else caller.call(number)
    return caller.sent

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        for line in sys.stdin:
            many = pool.starmap(send, [(int(line), True), (int(line), False)], 1)
            print(json.dumps(sum(many, [])), flush=True)
"""


class Producers(ABC):
    """A program whose processes send calls when they are asked to.

    Attributes:
        process: It.
    """

    def __init__(self, folder: Path, url: str, name: str, source: str, *command: str | Path) -> None:
        (folder / f"{name}.py").write_text(source)
        path = os.pathsep.join([str(folder), *filter(None, sys.path), str(Path(__file__).parents[2])])
        environ = {**os.environ, "TASKQ_URL": url, "PYTHONPATH": path}
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ,
                stdin=subprocess.PIPE, stdout=log if name == "wsgi" else subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    @abstractmethod
    def ask(self, number: int) -> list[Sent]:
        """Let them make so many calls; answers what was accepted."""

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.communicate()


class Uwsgi(Producers):
    """A master and two workers, forked behind Python's back."""

    PROGRAM = Path(sys.executable).parent / "uwsgi"

    def __init__(self, folder: Path, url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(
            folder, url, "wsgi", WSGI, self.PROGRAM, "--http-socket", f"127.0.0.1:{self.port}", "--master",
            "--processes", "2", "--wsgi-file", "wsgi.py", "--need-app", "--die-on-term", "--disable-logging",
        )  # fmt: skip

        def listens() -> bool:
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0 or self.process.poll() is not None

        wait_until(listens, "uWSGI listens")

    def ask(self, number: int) -> list[Sent]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/?{number}", timeout=90) as reply:
            return [Sent(*one) for one in json.load(reply)]


class Pool(Producers):
    """A pool of processes of ``multiprocessing``, made by ``forkserver`` or ``spawn``; one sends on an event loop."""

    def __init__(self, folder: Path, url: str, method: str) -> None:
        super().__init__(folder, url, f"pool_{method}", POOL, sys.executable, f"pool_{method}.py", method)

    def ask(self, number: int) -> list[Sent]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(number, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return [Sent(*one) for one in json.loads(line)]


def start_producers(folder: Path, url: str, *methods: str) -> list[Producers]:
    """Start the programs that there are: a pool for each method of starting processes, and uWSGI."""
    made: list[Producers] = [Pool(folder, url, method) for method in methods]
    if shutil.which(Uwsgi.PROGRAM):
        made.append(Uwsgi(folder, url))
    else:
        print("uWSGI is not installed: its workers are not among the producers")
    return made


class Load:
    """Threads that send calls, one through the proxy and one for each program of producers; and the operator's.

    Attributes:
        sent: What was accepted.
        revoked: Ids of calls that the operator has revoked, with the answer, and tasks of which some were.
        acts: How many acts of the operator there were.
    """

    def __init__(self, module: ModuleType, apps: list[TaskQ], programs: list[Producers], seed: str) -> None:
        self.sent: list[Sent] = []
        self.revoked: dict[str, str] = {}
        self.acts = 0
        self._module, self._seed = module, seed
        self._errors: list[BaseException] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        for n, app in enumerate(apps):
            self._start(self._send, Caller(module, app, f"{seed}-{n}"), random.Random(f"{seed}-{n}"))
        for program in programs:
            self._start(self._ask, program)
        self._start(self._operate, random.Random(f"{seed}-operator"))

    def _start(self, what: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                what(*args)
            except BaseException as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def stop(self) -> list[Sent]:
        """End it, and the operator's pauses; answers what was accepted."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise ExceptionGroup(
                "a producer or the operator failed", [e for e in self._errors if isinstance(e, Exception)]
            )
        for name in self._names():
            self._module.app.resume(name)
        return self.sent

    def _names(self) -> list[str]:
        return [URGENT, *(f"jobs.{name}" for name in STORMY)]

    def _wait_for_room(self) -> None:
        while not self._ended.wait(0.1):
            keys = self._module.app.client.keys
            if raw(self._module, b"HLEN", keys["messages"]) - raw(self._module, b"HLEN", keys["reasons"]) < MOST:
                return

    def _send(self, caller: Caller, chance: random.Random) -> None:
        while not self._ended.wait(chance.uniform(0.001, 0.02)):
            caller.call()
            if len(caller.sent) >= 50:
                self.sent += caller.sent
                caller.sent = []
                self._wait_for_room()
        self.sent += caller.sent

    def _ask(self, program: Producers) -> None:
        while not self._ended.wait(0.1):
            self.sent += program.ask(20)
            self._wait_for_room()

    # -- the operator -----------------------------------------------------------------------------------

    def _operate(self, chance: random.Random) -> None:
        acts = [self._pause, self._resume, self._revoke, self._revoke, self._revoke_all, self._replay]
        while not self._ended.wait(chance.uniform(0.02, 0.3)):
            chance.choice(acts)(chance)
            self.acts += 1

    def _pause(self, chance: random.Random) -> None:
        name = chance.choice(self._names())
        self._module.app.pause(name, "a try", seconds=chance.choice([0.2, 0.5, 1.5, 0]))

    def _resume(self, chance: random.Random) -> None:
        for name in chance.sample(self._names(), 10):
            self._module.app.resume(name)

    def _revoke(self, chance: random.Random) -> None:
        some = chance.sample(self.sent[-100:], min(5, len(self.sent[-100:])))
        for one in some:
            self.revoked[one.id] = ""  # it may be executed though its answer is lost
            self.revoked[one.id] = self._module.app.revoke(one.id, "a try")

    def _revoke_all(self, chance: random.Random) -> None:
        task = chance.choice(STORMY)
        self.revoked[task] = ""
        self._module.app.revoke_all(task=f"jobs.{task}", headers={"batch": chance.randrange(5)}, reason="a try")

    def _replay(self, chance: random.Random) -> None:
        replay(self._module, f"jobs.{chance.choice(['replayed', 'fails', 'broken', 'hangs'])}")


def replay(module: ModuleType, task: str) -> None:
    """Put the dead letters of a task back."""
    broker, graveyard = _graveyard(module, Filters(task=task))
    while (page := broker.perform(graveyard.next_page())) is not None:
        graveyard.taken(broker.perform(steering.replay(page)).count(True))


def purge(module: ModuleType) -> None:
    """Delete all dead letters."""
    broker, graveyard = _graveyard(module, Filters())
    while (page := broker.perform(graveyard.next_page())) is not None:
        graveyard.taken(broker.perform(steering.purge(page)))


def _graveyard(module: ModuleType, filters: Filters) -> tuple[Broker, Graveyard]:
    broker = module.app.client.broker
    return broker, Graveyard([module.app.client.keys], filters, broker.run(looking.server_time()))
