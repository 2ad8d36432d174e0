"""Workers of the shows: real ones on the example, whose processes are there to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgpack

from taskq.broker.commands import leasing, looking
from taskq.broker.pool import Broker
from taskq.showcase import example

#: Processes a worker has for its tasks.
PROCESSES = 2


class Worker:
    """``taskq worker`` on the example, in a process group of its own, with its log in a file."""

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        """Start it; it takes its settings from the environment, and ``folder`` has its log."""
        self.name = name
        self.log = folder / f"{name}.log"
        words = [sys.executable, "-m", "taskq", "worker", "-A", "tasks", "-n", name, "-c", str(PROCESSES), *options]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                words, cwd=example.folder(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def check(self) -> None:
        """Raise `ShowFailed` if it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise example.ShowFailed(
                f"a worker ended with exit code {self.process.returncode}; the end of its log:\n{tail}"
            )

    def stop(self) -> None:
        """Stop it, gently at first."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL all its processes."""
        self.signal(signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Incarnation:
    """A child as the server knows it.

    Attributes:
        id: In whose name it takes messages.
        pid: Its process.
        worker: Its worker's name.
        alone: Whether it is there to run a single suspect.
    """

    id: str
    pid: int
    worker: str
    alone: bool


def incarnations(broker: Broker) -> list[Incarnation]:
    """Return those of all workers; one that was killed is among them until it is recovered."""
    infos = {raw_id.decode(): msgpack.unpackb(raw) for raw_id, raw in broker.run(looking.workers(broker.keys)).items()}
    return [
        # A worker has two places a process, so that each can be replaced before it ends; then comes the isolated child.
        Incarnation(raw_id, info["pid"], info["worker"], info["child"] >= 2 * PROCESSES)
        for raw_id, info in infos.items()
    ]


def stop_one_that_holds(broker: Broker, candidates: Iterable[Incarnation]) -> tuple[Incarnation, list[bytes]] | None:
    """SIGSTOP the first child that holds messages; returns it and their ids, or None and lets all go on."""
    for child in candidates:
        try:
            os.kill(child.pid, signal.SIGSTOP)  # so that what it holds now is what it holds when it dies
        except ProcessLookupError:  # it has ended since
            continue
        wait_until_stopped([child.pid])
        if held := broker.run(leasing.held_ids(broker.keys, child.id)):
            return child, held
        os.kill(child.pid, signal.SIGCONT)
    return None


def wait_until_stopped(pids: Iterable[int]) -> None:
    """Wait until processes that were sent SIGSTOP have stopped: on a busy machine one may still be in a system call."""
    deadline = time.monotonic() + 1.0
    for pid in pids:
        while _is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.001)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:  # it has ended, or this system does not tell
        return False
    return state not in "TtZX"
