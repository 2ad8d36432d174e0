"""The examples do what their last comment says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Ran, environment
from tests.support import Server

EXAMPLES = Path(__file__).parents[2] / "examples"


def promised(example: str) -> str:
    """What the last comment of an example says it prints."""
    comment = (EXAMPLES / f"{example}.py").read_text().rpartition("# It prints")[2]
    return "".join(line.removeprefix("# ") + "\n" for line in comment.splitlines()[1:])


@pytest.fixture
def run(session_server: Server) -> Callable[..., Ran]:
    def run(folder: Path, *words: str) -> Ran:
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder, env=environment(session_server.url), capture_output=True, text=True, timeout=50,
        )  # fmt: skip

    return run


@pytest.fixture
def serve(session_server: Server) -> Iterator[Callable[..., None]]:
    started: list[subprocess.Popen[bytes]] = []

    def serve(folder: Path, module: str) -> None:
        words = [sys.executable, "-m", "taskq", "worker", "-A", module, "-c", "2", "-l", "critical"]
        started.append(
            subprocess.Popen(words, cwd=folder, env=environment(session_server.url), stderr=subprocess.DEVNULL)
        )

    yield serve
    for worker in started:
        worker.terminate()
        worker.wait(30)


@pytest.mark.parametrize("example", ["hello", "retry", "priority", "fleet_limits", "fair", "unique"])
def test_an_example_with_a_worker_beside_it(example: str, run: Callable[..., Ran], serve: Callable[..., None]) -> None:
    serve(EXAMPLES, example)

    assert run(EXAMPLES, f"{example}.py").stdout == promised(example)


def test_the_example_that_crashes_recovers(run: Callable[..., Ran]) -> None:
    assert run(EXAMPLES, "crash_and_recover.py").stdout == promised("crash_and_recover")


def test_the_indexer_reports_on_real_files(run: Callable[..., Ran], serve: Callable[..., None]) -> None:
    serve(EXAMPLES / "indexer", "tasks")

    ran = run(EXAMPLES / "indexer", "run.py", "60")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("60 files of ")
    assert "\n0 could not be read: {}\n" in ran.stdout
    assert len(ran.stdout.partition("longest functions\n")[2].splitlines()) == 10
