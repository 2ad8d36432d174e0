"""What the version before left on a server, in every state that a message can be in, is served to its end.

``tests/fixtures/before`` has that state, the tasks, and the program that made it with the code of then.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

from taskq import TaskError, TaskRevoked
from taskq.broker.call import Command
from taskq.broker.commands import producing
from taskq.cli import main
from taskq.errors import UnknownResult
from taskq.message.head import decode_head
from taskq.message.ids import id_from_text
from taskq.message.letters import FLAG_EXPIRES
from taskq.upkeep.audit import audit, queues_of
from taskq.upkeep.derived import restore
from tests.support import Server, Start, each_kind, survey, wait_until

FIXTURE = Path(__file__).parent.parent / "fixtures" / "before"
STATE: dict[str, Any] = json.loads((FIXTURE / "state.json").read_text())
AT: int = STATE["at"]

#: How long ago the last worker was killed, in ms. Most of what waits for its time has some left.
GONE = 4000
#: For how long no worker audits, in ms: the test does.
LONG = 600_000

#: States that somebody must end: until then their messages wait.
STOPPED = {"paused", "paused-guest", "walled", "ranked"}
#: Dead letters that cannot run whatever is done.
BROKEN = {"dead-bad-arguments": "bad-arguments", "dead-undecodable": "undecodable", "dead-unreadable": "unreadable"}
#: Dead letters that are replayed. The last one becomes one: it may run once, and ran when its process was killed.
MENDED = {
    "dead-failed": "failed", "dead-crashed": "crashed", "dead-abandoned": "abandoned",
    "dead-discarded": "discarded: older than discard_after", "dead-unknown-task": "unknown-task",
    "held-once": "abandoned",
}  # fmt: skip
#: What ``get()`` says of dead letters.
SAID = {
    "dead-failed": "dead-failed.1 fails", "dead-crashed": "its process ended with exit code 1",
    "dead-abandoned": "abandoned", "dead-discarded": "older than discard_after",
    "dead-unknown-task": "no worker has known the task 'later'", "dead-bad-arguments": "takes 1 positional argument",
    "dead-undecodable": "not readable as msgpack", "dead-unreadable": "unreadable",
}  # fmt: skip
#: States that had ended, with what ``get()`` says, or end without a run.
FAILED = {"failed", "tripping"}
REVOKED = {
    "expired": "expired", "expires-soon": "expired", "revoked": "revoked", "revoked-waiting": "revoked",
    "held-revoked": "revoked",
}  # fmt: skip
ENDED = {"failed", "tripping", "expired", "revoked"}
WITHOUT_RESULT = {"silent", "suspect-twice"}
#: Calls that do not run any more.
OVER = {"done.1", "told.1", "walled.1"}
#: What the ledger of the version before lacks: a message that no producer sent, and that was buried unread.
UNBOOKED = {"unreadable": -1}
#: Keys that are there only while there are messages.
OF_MESSAGES = (
    "messages$", "schedule$", "queue:", "ranked:", "turns$", "fair:", "gated:", "gates$", "heads:", "lines:", "slots$",
    "unique$", "paused$", "revoked$", "suspects:", "processing:", "dead:", "reasons$", "crashes$", "waiters$",
)  # fmt: skip


def state_of(label: str) -> str:
    """The state of a call by its label, ``<state>.<number>``."""
    return label.rpartition(".")[0]


class Old:
    """The state on a server, as if the version before had been killed some seconds ago."""

    def __init__(self, module: ModuleType, folder: Path) -> None:
        self.module, self.app, self.folder = module, module.app, folder
        self.keys, self.broker = self.app.client.keys, self.app.client.broker
        self.ids: dict[str, str] = STATE["ids"]
        self.by = 0  # ms

    def raw(self, *words: Any) -> Any:
        return self.broker.run(Command(None, words, lambda reply: reply))

    def load(self) -> None:
        """Write every key, with its times moved by what has passed since they were read."""
        seconds, micros = self.raw("TIME")
        self.by = int(seconds) * 1000 + int(micros) // 1000 - AT - GONE
        self.raw("SADD", "tq:apps", self.app.name)
        for name, stored in STATE["keys"].items():
            key = self.keys.prefix + name.encode("latin-1")
            self.raw(*self._command(name, stored["type"], key, stored["value"]))
            if stored["ttl"] >= 0:
                self.raw("PEXPIRE", key, LONG if name == "audited" else stored["ttl"])

    def _command(self, name: str, kind: str, key: bytes, value: Any) -> list[Any]:
        if kind == "hash":
            change = self._message if name == "messages" else self._text
            return ["HSET", key, *(word for k, v in value.items() for word in (k.encode("latin-1"), change(v)))]
        if kind == "zset":
            return ["ZADD", key, *(w for k, v in value.items() for w in (repr(self._moved(v)), k.encode("latin-1")))]
        if kind == "list":
            return ["RPUSH", key, *(item.encode("latin-1") for item in value)]
        return ["SET", key, self._text(value)]

    def _moved(self, number: float) -> float:
        """A time, moved; any other number as it is."""
        return number + self.by if abs(number - AT) < 2 * 86_400_000 else number

    def _text(self, value: str) -> bytes:
        """Move the times in a text, but for those that are part of an id."""
        moved = re.sub(r"(?<![\w:.])\d{13}(?!\d)", lambda found: str(int(self._moved(int(found[0])))), value)
        return moved.encode("latin-1")

    def _message(self, value: str) -> bytes:
        """Move the times in a head, and in the headers of an envelope that can be read."""
        stored = value.encode("latin-1")
        if len(stored) < 10:
            return stored
        *_, at = decode_head(stored)
        head = bytearray(stored[:at])
        for offset in (2, 10)[: 1 + (head[1] & FLAG_EXPIRES)]:
            struct.pack_into(">d", head, offset, self._moved(struct.unpack_from(">d", head, offset)[0]))
        version, raw_id, headers, body = msgpack.unpackb(stored[at:])
        headers = {k: self._moved(v) if type(v) in (int, float) else v for k, v in headers.items()}
        return bytes(head) + bytes(msgpack.packb([version, raw_id, headers, body]))

    def alive(self) -> set[str]:
        """Labels of the calls that have not ended, dead letters among them."""
        ids = set(self.raw("HKEYS", self.keys["messages"]))
        return {label for label, text in self.ids.items() if id_from_text(text) in ids}

    def dead(self) -> dict[str, str]:
        """Reasons of the dead letters, by their states."""
        ids = list(self.ids.values())
        reasons = self.raw("HMGET", self.keys["reasons"], *map(id_from_text, ids))
        return {
            state_of(label): reason.partition(b"\n")[0].decode()
            for label, reason in zip(self.ids, reasons, strict=True)
            if reason is not None
        }

    def end(self, label: str) -> Any:
        """What ``get()`` returns or raises."""
        try:
            return self.app.AsyncResult(self.ids[label]).get(timeout=10)
        except TaskRevoked as error:
            return error.type
        except TaskError as error:
            return error
        except UnknownResult:
            return None

    def taskq(self, *words: str) -> str:
        """Run a command."""
        ran = CliRunner(env={"TASKQ_URL": self.app.client.url, "COLUMNS": "200"}).invoke(main, words)
        assert ran.exit_code == 0, ran.output
        return ran.stdout


@pytest.fixture
def old(own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Old]:
    """The state of then on a server of the test's own."""
    monkeypatch.setenv("TASKQ_URL", own_server.url)
    shutil.copy(FIXTURE / "jobs.py", tmp_path)
    spec = importlib.util.spec_from_file_location("jobs", tmp_path / "jobs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded = Old(module, tmp_path)
    loaded.load()
    yield loaded
    loaded.app.close()


def expected(label: str) -> Any:
    """What a call comes to in the end."""
    state = state_of(label)
    if state in WITHOUT_RESULT:
        return None
    return REVOKED.get(state) or {"debounced": "DEBOUNCED.LAST"}.get(state, label.upper())


def still_to_run(label: str) -> int:
    """How many runs there are to come."""
    state = state_of(label)
    return int(not (label in OVER or state in FAILED or state in REVOKED or state in BROKEN))


def test_the_state_has_every_family_of_keys_that_the_version_before_wrote() -> None:
    families = STATE["families"]
    assert len(families) > 50
    patterns = [re.sub(r"<\w+>", ".+", family) for family in families]
    assert [p for p in patterns if not any(re.fullmatch(p, name, re.S) for name in STATE["keys"])] == []
    assert [name for name in STATE["keys"] if not any(re.fullmatch(p, name, re.S) for p in patterns)] == []


@each_kind
@pytest.mark.timeout(120)
def test_every_message_of_the_version_before_comes_to_its_end(
    old: Old, start_worker: Start, own_server: Server
) -> None:
    look(old)
    workers = [start_worker("-c", "2", url=own_server.url), start_worker("-c", "2", url=own_server.url)]

    wait_for_somebody = {label for label in old.ids if state_of(label) in STOPPED} - OVER
    kept = {label for label in old.ids if state_of(label) in {*MENDED, *BROKEN}}
    wait_until(lambda: old.alive() == wait_for_somebody | kept, "all else has ended", 40)
    assert old.dead() == {**MENDED, **BROKEN}
    assert not wait_for_somebody & runs(old).keys()
    assert told(old, "waits") == ["AWAITED.1"]

    for what in ("stopped", "stopped-guest", "yard"):
        assert old.app.resume(what)
    old.taskq("limit", "ranked", "--code")
    mended = [old.ids[f"{state}.1"] for state in MENDED]
    old.taskq("dead", "replay", "--yes", *mended)
    old.taskq("dead", "replay", "--yes", *(old.ids[f"{state}.1"] for state in BROKEN if state != "dead-unreadable"))
    broken = {f"{state}.1" for state in BROKEN}
    wait_until(lambda: old.alive() == broken and old.dead() == BROKEN, "all but what cannot run has ended", 40)
    wait_until(lambda: "due" in runs(old), "the tick that was due is sent")
    old.taskq("cron", "rm", "due")
    old.taskq("dead", "purge", "--yes", "--all")
    wait_until(lambda: not old.raw("HLEN", old.keys["messages"]), "nothing is left")

    check(old)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert not any("audit: " in worker.log for worker in workers)


def look(old: Old) -> None:
    """What is there is known before any worker comes: results, letters, locks, what a producer has sent."""
    jobs = old.module
    assert old.dead() == {state: reason for state, reason in {**MENDED, **BROKEN}.items() if state != "held-once"}
    assert [old.end(label) for label in ("done.1", "expired.1", "revoked.1")] == ["DONE.1", "expired", "revoked"]
    ends = {state: str(old.end(f"{state}.1")) for state in old.dead()}
    assert {state: text for state, text in ends.items() if SAID[state] not in text} == {}
    assert old.app.AsyncResult(old.ids["retry.1"]).state == "RETRY"
    assert [label for label, id_ in old.ids.items() if not old.app.AsyncResult(id_).why()] == []
    assert told(old, "was-told") == ["TOLD.1"]
    locked = {"unique-start": "until_start", "held-unique": "until_done", "unique-for": "unique_for"}
    for state, task in {**locked, "throttled": "throttled"}.items():
        assert getattr(jobs, task).delay(f"{state}.1").id == old.ids[f"{state}.1"]
    again = (id_from_text(old.ids["repeated.1"]), STATE["repeat"].encode("latin-1"), b"")
    assert old.broker.run(producing.enqueue(old.keys, b"producer", 7, [again])) == b"+"
    assert old.alive() == {label for label in old.ids if state_of(label) not in ENDED} - OVER


def told(old: Old, inbox: str) -> list[str]:
    """The results that wait for a process: each an id with its length before it, ``S``, and the value."""
    words = old.raw("LRANGE", old.keys["inbox:" + inbox], 0, -1)
    return [msgpack.unpackb(word[word[0] + 2 :]) for word in words]


def runs(old: Old) -> Counter[str]:
    """How many times each call was begun by the code of today."""
    journal = old.folder / "journal"
    return Counter(journal.read_text().split() if journal.exists() else [])


def check(old: Old) -> None:
    """Each has ended as it must, after as many runs as it must, and nothing is left of it."""
    expected_runs = Counter({label: still_to_run(label) for label in old.ids})
    expected_runs["debounced.last"] = expected_runs.pop("debounced.1")
    got = runs(old)
    assert got.pop("due") >= 1
    assert got == +expected_runs
    ends = {label: old.end(label) for label in old.ids if state_of(label) not in BROKEN}
    failed = {label: end for label, end in ends.items() if isinstance(end, TaskError)}
    assert {state_of(label) for label in failed} == FAILED
    assert all(f"{label} fails" in str(error) for label, error in failed.items())
    assert {label: end for label, end in ends.items() if label not in failed and end != expected(label)} == {}
    ledger = survey(old.app)
    assert {queue: found.balance for queue, found in ledger.items() if found.balance} == UNBOOKED
    assert not any(found.counters.get("dangling") for found in ledger.values())
    queues = old.broker.drive(queues_of(old.keys))
    assert old.broker.drive(audit(old.keys, queues)) == Counter(recounted=1)
    assert old.broker.drive(audit(old.keys, queues)) + old.broker.drive(restore(old.keys, queues)) == Counter()
    assert {found.balance for found in survey(old.app).values()} == {0}
    names = {name[len(old.keys.prefix) :].decode("latin-1") for name in old.raw("KEYS", "*") if b"{" in name}
    assert {name for name in names if re.match("|".join(OF_MESSAGES), name)} == set()
    assert set(old.raw("HKEYS", old.keys["periodic"])) == {b"hourly", b"halted"}
