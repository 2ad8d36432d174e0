"""The laboratory: a server of its own, processes pinned to a core or not, and clocks that read their CPU time.

CPU seconds are those of the kernel's scheduler (``/proc/<pid>/task/*/schedstat``, in ns), so Linux only. What is
pinned (client, worker, server) shares one core; the observer stays off it where there is another.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).resolve().parent.parent

_given = os.environ.get("BENCH_CORES")
#: The cores there are, and the one for all that is pinned.
CORES = {int(core) for core in _given.split(",")} if _given else os.sched_getaffinity(0)
CORE = max(CORES)
#: Seconds between two calls that come alone: 200 a second.
TRICKLE = 0.005


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0, every: float = 0.002) -> None:
    """Wait until ``condition()`` is true; raises `TimeoutError` that names ``what``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


# -- processes ----------------------------------------------------------------------------------------------


def observe_from_elsewhere() -> None:
    """Keep this process off the core that is measured, if there is another."""
    os.sched_setaffinity(0, CORES - {CORE} or CORES)


def start(
    arguments: list[str], *, pinned: bool = False, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, on the measured core or on any."""
    cores = {CORE} if pinned else CORES
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CORES": ",".join(map(str, CORES)), **(env or {})}
    return subprocess.Popen(
        arguments, env=environ, cwd=ROOT, start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores), **more,
    )  # fmt: skip


def role(
    module: str, *arguments: object, python: str = sys.executable, pinned: bool = False,
    env: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """Run ``python -m module arguments``; returns what its last line says, as JSON."""
    words = [python, "-m", module, *map(str, arguments)]
    process = start(words, pinned=pinned, env=env, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


@contextmanager
def running(
    arguments: list[str], *, pinned: bool = False, log: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program run for the length of a block; then SIGTERM, and SIGKILL for its group."""
    with open(log or os.devnull, "ab") as output:
        process = start(arguments, pinned=pinned, env=env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and all of its group."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for thread in _threads(parent):
            try:
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text()
            except OSError:
                continue
            pids += map(int, children.split())
    return pids


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def cpu_of(*pids: int) -> float:
    """CPU seconds that the living threads of processes have used, user and system."""
    total = 0
    for pid in pids:
        for thread in _threads(pid):
            try:
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def cpu_to_run(arguments: list[str]) -> float:
    """CPU seconds of a program from its start to its end."""
    process = start(arguments, pinned=True, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {status}")
    return usage.ru_utime + usage.ru_stime


def pss_of(pid: int) -> float:
    """Proportional set size in MB: private memory, and shared memory divided by how many share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Pss in smaps_rollup")


# -- the server ---------------------------------------------------------------------------------------------


class Server:
    """A server, as its observer sees it: by URL, wherever it was started."""

    def __init__(self, url: str) -> None:
        """Connect to ``url``."""
        self.url = url
        self.client = redis.Redis.from_url(url)

    def info(self) -> dict[str, Any]:
        """All of INFO."""
        return self.client.info()

    def cpu(self) -> float:
        """CPU seconds of the server's main thread so far."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])

    def memory(self) -> int:
        """Bytes the server has allocated."""
        return int(self.client.info("memory")["used_memory"])

    def commands(self) -> int:
        """Commands executed so far, those of scripts included."""
        return int(self.client.info("stats")["total_commands_processed"])

    def commands_sent(self, seconds: float) -> int:
        """Watch for ``seconds`` how many commands clients send, those of scripts not included."""
        connection = socket.socket(socket.AF_UNIX)
        with connection:
            connection.connect(self.client.connection_pool.connection_kwargs["path"])
            connection.sendall(b"MONITOR\r\n")
            connection.settimeout(0.1)
            deadline, seen = time.monotonic() + seconds, b""
            while time.monotonic() < deadline:
                try:
                    seen += connection.recv(1 << 16)
                except TimeoutError:
                    continue
        return sum(b" lua] " not in line for line in seen.splitlines()[1:])

    def flush(self) -> None:
        """Delete everything, now."""
        self.client.flushall(asynchronous=False)


class OwnServer(Server):
    """A server started for the benchmarks: no persistence, on a unix socket and on TCP, pinned."""

    def __init__(self, program: str, folder: Path) -> None:
        """Start ``program`` with its socket in ``folder``."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = folder / "server.sock"
        self.tcp = f"redis://127.0.0.1:{port}/0"
        self.folder = folder
        self.process = start(
            [program, "--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path), "--dir", str(folder),
             "--save", "", "--appendonly", "no"],
            pinned=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        super().__init__(f"unix://{path}")
        wait_until(self.answers, f"{program} answers")

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def pin(self, pinned: bool) -> None:
        """Put the server on the measured core, or let it run on any."""
        for thread in _threads(self.process.pid):
            os.sched_setaffinity(int(thread), {CORE} if pinned else CORES)

    def stop(self) -> None:
        """Kill it; nothing it holds is needed."""
        self.process.kill()
        self.process.wait()


# -- draining -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drained:
    """What it took to empty a queue: microseconds a message of the worker's and of the server's CPU, and the rate."""

    messages: int
    worker: float
    server: float
    rate: float
    commands: float


def observe_drain(pid: int, server: Server, remaining: Callable[[], int], begin: int, end: int = 0) -> Drained:
    """Watch a worker's process tree from when fewer than ``begin`` remain until at most ``end`` do."""
    wait_until(lambda: remaining() < begin, "the worker begins", every=0.001)
    pids = tree(pid)
    first, cpu, server_cpu, commands, at = remaining(), cpu_of(*pids), server.cpu(), server.commands(), time.monotonic()
    polls, left = 0, first
    while left > end:
        time.sleep(0.005)
        polls += 1
        left = remaining()
        if time.monotonic() - at > 600:
            raise TimeoutError(f"{left} of {first} remain after 600 s")
    took, done = time.monotonic() - at, first - left
    if not done:
        raise RuntimeError(f"all {begin} messages had gone before their second count: there must be more of them")
    cpu, server_cpu = cpu_of(*pids) - cpu, server.cpu() - server_cpu
    commands = server.commands() - commands - polls
    return Drained(done, cpu / done * 1e6, server_cpu / done * 1e6, done / took, commands / done)
