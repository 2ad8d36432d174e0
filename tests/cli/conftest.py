"""The ``taskq`` command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskq.cli import main
from tests.support import Server

Ran = subprocess.CompletedProcess[str]


def environment(url: str | None) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if k not in ("TASKQ_URL", "TASKQ_APP", "COLUMNS")}
    return environ if url is None else {**environ, "TASKQ_URL": url}


@pytest.fixture
def taskq(tmp_path: Path, session_server: Server) -> Callable[..., Ran]:
    """Run ``taskq`` to its end, in the test's folder."""

    def run(
        *words: str,
        url: str | None = session_server.url,
        typed: str = "",
        seconds: float = 30,
        folder: Path = tmp_path,
    ) -> Ran:
        return subprocess.run(
            [sys.executable, "-m", "taskq", *words],
            cwd=folder, env=environment(url), input=typed, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip

    return run


@pytest.fixture
def quick(session_server: Server) -> Callable[..., Ran]:
    """The command within this process, for tests that call it often."""

    def run(*words: str) -> Ran:
        ran = CliRunner(env={"TASKQ_URL": session_server.url, "COLUMNS": "250"}).invoke(main, words)
        return Ran(words, ran.exit_code, ran.stdout, ran.stderr)

    return run


class Background:
    """A ``taskq`` that goes on running; what it says is in files."""

    def __init__(self, folder: Path, url: str | None, words: tuple[str, ...]) -> None:
        self._out, self._err = folder / "background.out", folder / "background.err"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskq", *words], cwd=folder, env=environment(url), stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def end(self, number: int = 15) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def background(tmp_path: Path, session_server: Server) -> Iterator[Callable[..., Background]]:
    """Start ``taskq`` in the test's folder; it is killed if it is still there at the end."""
    started: list[Background] = []

    def start(*words: str, url: str | None = session_server.url) -> Background:
        started.append(Background(tmp_path, url, words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
