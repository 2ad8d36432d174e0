"""Commands that find no server, or one that is still loading: told at once, ended at once."""

from __future__ import annotations

import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Background, environment
from tests.support import Server, Start, Write, wait_until

JOBS = "@app.task\ndef add(a, b): return a + b\n"


class _Loading(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2) for _ in range(int(line[1:]))]
                told = words[0].strip().upper() == b"INFO"  # the one command that such a server executes
                self.wfile.write(b"$23\r\nredis_version:7.0.0\r\n\r\n\r\n" if told else b"-LOADING the data set\r\n")


@pytest.fixture
def loading(short_folder: Path) -> Iterator[str]:
    """The URL of a server that is loading its data, for ever."""
    path = short_folder / f"loading-{os.urandom(4).hex()}"
    with socketserver.ThreadingUnixStreamServer(str(path), _Loading) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


@pytest.mark.parametrize(("number", "there"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_worker_that_waits_for_its_server_ends_at_once(
    number: int, there: bool, jobs: Write, start_worker: Start, loading: str, tmp_path: Path
) -> None:
    url = loading if there else f"unix://{tmp_path}/nowhere"
    jobs(JOBS, url=url)
    worker = start_worker("-c", "1", url=url)
    wait_until(lambda: "waiting for the server" in worker.log or "concurrency" in worker.log, "it waits")

    assert worker.stop(number, seconds=5) == 0, worker.log
    assert "taskq: stopped before it began" in worker.log
    assert "Traceback" not in worker.log


def test_a_worker_whose_module_is_still_being_imported_ends_at_once(jobs: Write, start_worker: Start) -> None:
    jobs("import sys\nif 'worker' in sys.argv: print('importing', flush=True); time.sleep(60)\n" + JOBS)
    worker = start_worker("-c", "1")
    wait_until(lambda: "importing" in worker.log, "it imports")

    assert worker.stop(seconds=5) == 0, worker.log
    assert "stopped before it began" in worker.log


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a process namespace of its own")
def test_the_first_process_of_a_container_that_waits_for_its_server_ends_at_once(jobs: Write, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nowhere"
    jobs(JOBS, url=url)
    with open(tmp_path / "log", "wb") as log:
        container = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
             sys.executable, "-m", "taskq", "worker", "-A", "jobs", "-c", "1"],
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: b"waiting for the server" in (tmp_path / "log").read_bytes(), "it waits")
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert container.wait(5) == 0
    finally:
        container.kill()
        container.wait()


def test_a_spawned_child_that_is_not_up_yet_does_not_hold_up_a_stop(jobs: Write, start_worker: Start) -> None:
    jobs(
        "import multiprocessing\nif multiprocessing.parent_process(): print('up', flush=True); time.sleep(60)\n" + JOBS
    )
    worker = start_worker("-c", "1", env={"TASKQ_START_METHOD": "spawn"})
    wait_until(lambda: "up" in worker.log.split(), "the child imports")

    assert worker.stop(seconds=10) == 0, worker.log


def test_a_start_method_that_there_is_not_is_refused(jobs: Write, start_worker: Start) -> None:
    jobs(JOBS)
    worker = start_worker("-c", "1", env={"TASKQ_START_METHOD": "forkserve"})

    assert worker.process.wait(20) == 2
    assert "start_method must be 'fork' or 'forkserver' or 'spawn', not 'forkserve'; did you mean" in worker.log
    assert "(from TASKQ_START_METHOD)" in worker.log


def test_every_command_without_a_server_is_a_line_and_exit_code_2(tmp_path: Path, own_server: Server) -> None:
    call = "0190f0e0-0000-7000-8000-000000000000"
    commands = [
        ["reaper", "--once"], ["reaper", "--once", "--dry-run"], ["queues"], ["why", call], ["pause", "q"],
        ["revoke", call], ["limit", "q"], ["dead", "ls"], ["cron", "ls"], ["ps"], ["stop", "one"],
        ["ping", "--timeout", "0.2"],
    ]  # fmt: skip
    own_server.kill()
    # Nothing there, a port that refuses, and what a server has left that was killed; all wait at the same time.
    urls = [f"unix://{tmp_path}/nowhere", "redis://localhost:1", own_server.url]
    cases = [(urls[n % 3], words) for n, words in enumerate(commands)]
    cases += [(None, ["dead", "ls", "--url", own_server.url])]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "taskq", *words],
            cwd=tmp_path, env=environment(url), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for url, words in cases
    ]  # fmt: skip

    for (url, words), process in zip(cases, running, strict=True):
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, ""), words
        assert error.startswith(f"taskq: no answer from {url or own_server.url}"), words
        assert "Traceback" not in error, words


def test_a_reaper_that_waits_for_the_server_ends_at_once(background: Callable[..., Background], tmp_path: Path) -> None:
    reaper = background("reaper", url=f"unix://{tmp_path}/nowhere")
    wait_until(lambda: "waiting for the server" in reaper.err, "it waits")

    assert reaper.end() == 0
