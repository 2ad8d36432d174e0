"""Servers and apps for the tests: real ones, each on a unix socket in a temporary folder."""

from __future__ import annotations

import compileall
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from types import ModuleType

import pytest
from hypothesis import settings

import taskq
from taskq import TaskQ
from taskq.calls.client import Client
from tests.support import Server, Worker, load_jobs, new_app, programs

# A shell starts what runs in the background with SIGINT ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A clock decides nothing in a test: a busy machine makes any example slow once in a while.
settings.register_profile("taskq", deadline=None)
settings.load_profile("taskq")

# Workers have the standard streams that users give them: without a buffer they lack a lock, and with it some faults.
os.environ.pop("PYTHONUNBUFFERED", None)

FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Compile taskq once where Python may not keep bytecode (as in many images): a thousand processes would do it."""
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):  # xdist's own processes find it there
        for folder in taskq.__path__:  # by hash: a file that is changed within a second is compiled anew all the same
            compileall.compile_dir(folder, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


def pytest_collection_finish() -> None:
    """Leave seven thousand tests, which stay to the end, out of what each collection looks through."""
    gc.freeze()


os.environ["TASKQ_TEST_CLOCK"] = "1"  # the server's clock can be moved by the key `clock`


@pytest.fixture(autouse=True)
def no_connection_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test's apps have opened: a socket that is collected later is an error in whatever test runs then."""
    made: list[Client] = []
    prepare = Client.__init__

    def note(self: Client, *arguments: object) -> None:
        prepare(self, *arguments)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Client, "__init__", note)
    yield
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="tq"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _serve(program: str, base: Path) -> Iterator[Server]:
    server = Server(program, Path(tempfile.mkdtemp(dir=base)))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server_kind(request: pytest.FixtureRequest) -> str:
    """Which server a test has: Valkey, but for tests that are marked as `each_kind`."""
    return getattr(request, "param", "valkey")


@pytest.fixture(scope="session")
def session_server(server_kind: str, short_folder: Path) -> Iterator[Server]:
    """One server for all tests of this process that leave it running; each test has its own app."""
    yield from _serve(programs()[server_kind], short_folder)


@pytest.fixture
def own_server(server_kind: str, short_folder: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed at will."""
    yield from _serve(programs()[server_kind], short_folder)


@pytest.fixture(scope="session", params=sorted(programs()))
def each_server(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Server]:
    """Each kind of server that is installed, in turn."""
    yield from _serve(programs()[request.param], short_folder)


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    """An app on the session's server."""
    made = new_app(session_server.url)
    yield made
    made.close()


@pytest.fixture
def jobs(tmp_path: Path, session_server: Server) -> Iterator[Callable[..., ModuleType]]:
    """Write a module ``jobs`` with an app and the given tasks; returns it as the producer sees it."""
    written: list[ModuleType] = []

    def write(source: str, url: str = session_server.url, settings: str = "") -> ModuleType:
        written.append(load_jobs(tmp_path, source, url, settings))
        return written[-1]

    yield write
    for module in written:
        module.app.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the fixtures know whether a test has failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def start_worker(
    tmp_path: Path, session_server: Server, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Worker]]:
    """Start workers on modules in ``tmp_path``; what still runs at the end is killed, and shown if the test failed."""
    started: list[Worker] = []

    def start(*options: str, url: str = session_server.url, **more: object) -> Worker:
        started.append(Worker(tmp_path, url, *options, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for worker in started:
        if request.node.stash.get(FAILED, False):
            worker.show()
        if worker.process.poll() is None:
            worker.kill_group()
