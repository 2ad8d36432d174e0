"""What is measured. A scenario is a function of the bench that yields samples: the name of a series, and a value.

It is called once per repeat and runs what it compares one after the other, so that a slow minute of the machine hits
all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from benchmarks import lab

Samples = Iterator[tuple[str, float]]


@dataclass
class Bench:
    """The server and the folder that scenarios use, and how much they are to do."""

    server: lab.OwnServer
    folder: Path
    quick: bool = False
    #: The interpreter of each task queue to compare with.
    peers: Mapping[str, str] = field(default_factory=dict)
    #: What a scenario wants said below the table.
    remarks: list[str] = field(default_factory=list)
    #: How many partitions the app has.
    partitions: int = 1

    def n(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full

    def remark(self, text: str) -> None:
        """Say something below the table, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def role(self, *words: object, pinned: bool = False, env: Mapping[str, str] | None = None) -> Any:
        """Run a part of `benchmarks.roles`."""
        env = {"TASKQ_URL": self.server.url, "BENCH_LOG": str(self.log), **(env or {})}
        return lab.role("benchmarks.roles", *words, pinned=pinned, env=env)

    @property
    def log(self) -> Path:
        """Where tasks note when they ran."""
        return self.folder / "notes"

    def lines(self) -> list[list[str]]:
        """What they have noted so far."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @contextmanager
    def worker(
        self, *options: str, pinned: bool = False, env: Mapping[str, str] | None = None
    ) -> Iterator[Popen[bytes]]:
        """Have ``taskq worker`` run for the length of a block."""
        words = [sys.executable, "-m", "taskq", "worker", "-A", "benchmarks.tasks", *options]
        env = {"TASKQ_URL": self.server.url, "BENCH_LOG": str(self.log), **(env or {})}
        with lab.running(words, pinned=pinned, log=self.folder / "worker.log", env=env) as process:
            yield process

    def key(self, name: str, partition: int = 0) -> bytes:
        """The full name of one of the app's keys."""
        return b"tq:{bench:%d}:%s" % (partition, name.encode())

    def remaining(self) -> int:
        """How many messages have not ended."""
        return sum(int(self.server.client.hlen(self.key("messages", n))) for n in range(self.partitions))

    def workers(self) -> int:
        """How many lanes of children are registered."""
        return int(self.server.client.zcard(self.key("leases")))

    def clear(self) -> None:
        """Delete everything on the server and the tasks' notes."""
        self.server.flush()
        self.log.unlink(missing_ok=True)


Scenario = Callable[[Bench], Samples]


def queue(task: str) -> str:
    """The queue of a task of `benchmarks.tasks`."""
    return f"benchmarks.tasks.{task}"
