"""``taskq chaos``: it breaks what it may, loses nothing, says so only if it is so, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from taskq.broker.call import Command
from taskq.broker.commands.announcing import known_apps
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.showcase.chaos import LEASE
from taskq.showcase.trouble import Kind, make_plan
from tests.cli.conftest import Ran, environment
from tests.support import Server, wait_until

Run = Callable[..., Ran]


def seed_of(*kinds: Kind, possible: Iterable[Kind] = Kind) -> str:
    """A seed whose plan begins with these kinds."""
    possible = list(possible)
    plans = ((seed, make_plan(seed, 12.0, LEASE, possible)[: len(kinds)]) for seed in range(100_000))
    return next(str(seed) for seed, plan in plans if tuple(step.kind for step in plan) == kinds)


#: What is possible on a server that may not be killed, and a plan of it that is over soon.
NAMED = [kind for kind in Kind if kind is not Kind.SERVER]
SHORT = seed_of(Kind.CUT, Kind.CHILD, possible=NAMED)


class Chaos:
    """A ``taskq chaos`` with a temporary folder of its own, which tells its processes from all others."""

    def __init__(self, folder: Path, url: str | None, *words: str) -> None:
        self.folder = folder
        self._out = folder.with_suffix(".out")
        with open(self._out, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskq", "chaos", *words],
                cwd=folder.parent,
                env={**environment(url), "TMPDIR": str(folder), "COLUMNS": "200"},
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        return self._out.read_text()

    def figure(self, what: str) -> int:
        """The number in the line of the last table that says ``what``."""
        (number,) = re.findall(rf"^ *([\d,]+) +{what}", self.said, re.MULTILINE)
        return int(number.replace(",", ""))

    def check_nothing_is_left(self) -> None:
        mark = b"TMPDIR=" + os.fsencode(self.folder) + b"\0"

        def left() -> list[str]:
            return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path)]

        wait_until(lambda: not left(), "the guard of the server has seen that it is gone, and nothing is left")
        assert list(self.folder.iterdir()) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


@pytest.fixture
def chaos(short_folder: Path) -> Iterator[Callable[..., Chaos]]:
    started: list[Chaos] = []

    def start(*words: str, url: str | None = None) -> Chaos:
        folder = short_folder / f"chaos{len(list(short_folder.iterdir()))}"
        folder.mkdir()
        started.append(Chaos(folder, url, *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(20)


def column(said: str, queue: int) -> list[int]:
    """The numbers of a queue in the ledger: accepted, then what became of them."""
    rows = re.findall(r"^[ =+] (?:accepted|done|failed|[a-z]+|off by) +([\d,]+) +([\d,]+) *$", said, re.MULTILINE)
    return [int(row[queue].replace(",", "")) for row in rows]


def test_everything_is_broken_and_nothing_is_lost(chaos: Callable[..., Chaos]) -> None:
    # In this order there is always another worker at work, on a slow machine as well.
    order = Kind.WORKER, Kind.SERVER, Kind.CHILD, Kind.PARENT, Kind.CUT, Kind.CHILD, Kind.STOP
    run = chaos("--seconds", "10", "--seed", seed_of(*order))

    assert run.process.wait(50) == 0, run.said
    for kind in order:
        assert f"{kind.value}: " in run.said
    assert run.figure("lost") == 0
    assert run.figure("sent again although no fault") == 0
    assert run.figure("sent again; ") > 0
    calls = run.figure("calls accepted")
    assert run.figure("of these mails arrived") + run.figure("dead-lettered") == calls
    for queue in (0, 1):
        accepted, *rest = column(run.said, queue)
        assert len(rest) == 11
        assert accepted == sum(rest) > 0
        assert rest[-1] == 0
    assert column(run.said, 0)[0] + column(run.said, 1)[0] == calls
    run.check_nothing_is_left()


def test_a_server_that_is_named_is_not_broken_without_being_told(taskq: Run, session_server: Server) -> None:
    for words in ((), ("--url", session_server.url)):
        ran = taskq("chaos", *words, url=None if words else session_server.url)

        assert ran.returncode == 2
        assert f"this would cut connections on {session_server.url}" in ran.stderr
        assert "--yes-break-it" in ran.stderr
        assert ran.stdout == ""


def test_on_a_named_server_it_breaks_only_its_own_and_leaves_no_key(
    chaos: Callable[..., Chaos], own_server: Server
) -> None:
    other = Connection(own_server.url)
    number = other.execute(Command(None, [b"CLIENT", b"ID"], int))

    run = chaos("--seconds", "4", "--seed", SHORT, "--yes-break-it", url=own_server.url)

    assert run.process.wait(50) == 0, run.said
    assert "connections cut: " in run.said
    assert "SIGKILL of a server" not in run.said
    assert other.execute(Command(None, [b"CLIENT", b"ID"], int)) == number, "this connection was not cut"
    assert other.execute(Command(None, [b"DBSIZE"], int)) == 0
    run.check_nothing_is_left()


def test_a_message_that_is_deleted_behind_its_back_is_found_missing(
    chaos: Callable[..., Chaos], own_server: Server
) -> None:
    connection = Connection(own_server.url)
    run = chaos("--seconds", "3", "--seed", SHORT, "--yes-break-it", url=own_server.url)
    delete = b"local id = redis.call('LINDEX', KEYS[1], -1) return id and redis.call('HDEL', KEYS[2], id) or 0"

    def deleted() -> bool:
        assert run.process.poll() is None, run.said
        for app in connection.execute(known_apps()):
            keys = Keys(app)
            words = [b"EVAL", delete, 2, keys["queue:tasks.send_email"], keys["messages"]]
            if connection.execute(Command(None, words, int)):
                return True
        return False

    wait_until(deleted, "a waiting message is deleted")

    assert run.process.wait(50) == 1
    assert run.figure("lost") == 1
    assert "taskq: 1 mails are missing: " in run.said
    assert "taskq: queue tasks.send_email: of 1 messages only the id was left, they were never run" in run.said
    assert re.search(r"^\+ dangling +0 +1 *$", run.said, re.MULTILINE)
    assert "the logs of the workers are in " in run.said


def test_ctrl_c_leaves_nothing_behind(chaos: Callable[..., Chaos]) -> None:
    run = chaos("--seconds", "30", "--seed", seed_of(Kind.STOP))
    wait_until(lambda: "SIGSTOP of a worker: " in run.said, "a worker is stopped")

    run.process.send_signal(signal.SIGINT)

    assert run.process.wait(50) == 1
    run.check_nothing_is_left()
