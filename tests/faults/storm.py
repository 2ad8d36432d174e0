"""Everything that can go wrong for a fleet of workers and for their server, at random."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from taskq.broker.call import Command
from tests.faults.fleet import Fleet, kill, nap
from tests.faults.proxy import CUT_REPLY, DROP_REPLY, DROP_REQUEST, PASS, Proxy
from tests.support import Server

#: The shortest lease of the fleet, in seconds: what lasts longer ends it.
LEASE = 3.0


class Storm:
    """Everything that can go wrong for a fleet of workers behind a proxy, and for their server.

    Attributes:
        log: What was done, and when.
    """

    def __init__(self, chance: random.Random, fleet: Fleet, proxy: Proxy, server: Server, module: ModuleType) -> None:
        self.chance = chance
        self.fleet = fleet
        self.proxy = proxy
        self.server = server
        self.module = module
        self.log: list[str] = []
        self._began = time.monotonic()
        self._later: list[threading.Timer] = []
        self._faults = [
            *(3 * [self.kill]),
            *(2 * [self.stop_some, self.lose_replies, self.break_connections]),
            *(self.silence, self.pause_server, self.kill_server, self.flush_scripts, self.deploy, self.hang_up),
        ]

    def rage(self, seconds: float) -> None:
        """Do one thing after the other, some at the same time; in the end all is as it was."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.fleet.tend()
            fault = self.chance.choice(self._faults)
            self.log.append(f"{time.monotonic() - self._began:.2f} {fault.__name__} {fault()}")
            nap(self.chance.uniform(0.0, 0.3))
        for timer in self._later:
            timer.join()
        self._later.clear()
        self.fleet.tend()

    def _in(self, seconds: float, what: Callable[..., object], *args: Any) -> str:
        self._later.append(threading.Timer(seconds, what, args))
        self._later[-1].start()
        return f"for {seconds:.1f} s"

    def kill(self) -> str:
        return self.fleet.kill_one(self.chance)

    def stop_some(self) -> str:
        """SIGSTOP for a part of a lease or more of it: a parent, or a worker with its children."""
        worker = self.chance.choice(self.fleet.workers)
        kill(worker.process.pid, signal.SIGSTOP)  # it starts no other child between this and the look
        self.fleet.victims.update(children := worker.children(surely=True))
        pids = [worker.process.pid, *(children if self.chance.random() < 0.5 else [])]
        for pid in pids[1:]:
            kill(pid, signal.SIGSTOP)
        return self._in(self.chance.uniform(0.1, 1.5) * LEASE, lambda: [kill(pid, signal.SIGCONT) for pid in pids])

    def lose_replies(self) -> str:
        chance = random.Random(self.chance.random())
        fates, weights = [PASS, DROP_REPLY, CUT_REPLY, DROP_REQUEST], [90, 5, 3, 2]
        self.proxy.decide = lambda number, call: chance.choices(fates, weights)[0]
        return self._in(self.chance.uniform(0.2, 2.0), setattr, self.proxy, "decide", lambda number, call: PASS)

    def silence(self) -> str:
        self.proxy.swallow = True  # from now on no child that is started takes anything
        for worker in self.fleet.workers:
            self.fleet.victims.update(worker.children(surely=True))
        return self._in(self.chance.uniform(0.1, 1.2) * LEASE, setattr, self.proxy, "swallow", False)

    def break_connections(self) -> str:
        if self.chance.random() < 0.5:
            self.proxy.reset()
            return "of the fleet"
        self._ask(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
        return "of all"

    def flush_scripts(self) -> None:
        self._ask(b"SCRIPT", b"FLUSH")

    def _ask(self, *words: bytes) -> None:
        self.module.app.client.broker.run(Command(None, list(words), lambda reply: reply), seconds=30)

    def pause_server(self) -> str:
        self.server.signal(signal.SIGSTOP)
        return self._in(self.chance.uniform(0.05, 1.2) * LEASE, self.server.signal, signal.SIGCONT)

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def deploy(self) -> None:
        self.fleet.replace(self.chance.randrange(len(self.fleet.workers)))

    def hang_up(self) -> None:
        """Replace the children of a worker, each when what it runs has ended."""
        worker = self.chance.choice(self.fleet.workers)
        if worker.children():  # before, it would be the end of it
            kill(worker.process.pid, signal.SIGHUP)
