"""Messages that no taskq wrote: each is put aside with a reason, and the worker lives on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType

import msgpack
import pytest

from taskq import TaskError
from taskq.broker import commands
from taskq.broker.commands import Command
from taskq.envelope import encode_head, new_id
from tests.support import Worker, survey, wait_until

Write = Callable[..., ModuleType]
Start = Callable[..., Worker]

JOBS = """
@app.task
def add(a, b=2):
    return a + b
"""

HEAD = encode_head("jobs.add", "jobs.add")
STAMPED = HEAD[:2] + struct.pack(">d", 1.0) + HEAD[2:]
ID = new_id()
GOOD_BODY = msgpack.packb([[1], {}])


def envelope(*parts: object) -> bytes:
    return STAMPED + msgpack.packb(list(parts))


BAD = {
    "nothing": b"",
    "one byte": b"\xc1",
    "another version": b"\x07" + envelope(1, ID, {}, GOOD_BODY)[1:],
    "a head cut short": STAMPED[:15],
    "an envelope cut in the middle": envelope(1, ID, {}, GOOD_BODY)[:-3],
    "more after the envelope": envelope(1, ID, {}, GOOD_BODY) + b"x",
    "an array of the wrong length": envelope(1, ID, {}),
    "not an array": STAMPED + msgpack.packb({"a": 1}),
    "another's id": envelope(1, b"x" * 16, {}, GOOD_BODY),
    "headers that are a list": envelope(1, ID, [], GOOD_BODY),
    "a body that is no msgpack": envelope(1, ID, {}, b"\xc1\xc1"),
    "a body that is no call": envelope(1, ID, {}, msgpack.packb(7)),
    "arguments that do not bind": envelope(1, ID, {}, msgpack.packb([[], {"nope": 1}])),
    "10,000 levels": envelope(1, ID, {}, b"\x92\x91" + b"\x91" * 10_000 + b"\xc0" + b"\x80"),
    "a length of 2 GB": envelope(1, ID, {}, b"\x92\x91\xc6\x7f\xff\xff\xff" + b"x" * 10),
    "an array of 4 G": envelope(1, ID, {}, b"\xdd\xff\xff\xff\xff"),
    "an unknown extension": envelope(1, ID, {}, msgpack.packb([[msgpack.ExtType(99, b"")], {}])),
    "a map key that cannot be one": envelope(1, ID, {}, b"\x92\x91\x81\x90\xc0\x80"),
    "retries that are text": envelope(1, ID, {"retries": "many", "unknown": "x", "first": "y"}, b"\xc1"),
}


def inject(module: ModuleType, value: bytes, raw_id: bytes = ID) -> None:
    broker, keys = module.app.client.broker, module.app.client.keys
    for words in (
        [b"HSET", keys["messages"], raw_id, value],
        [b"RPUSH", keys["queue:jobs.add"], raw_id],
        [b"HINCRBY", keys["counters"], b"jobs.add|accepted", 1],
    ):
        broker.run(Command(None, words, lambda reply: reply))


def dead_reason(module: ModuleType, raw_id: bytes = ID) -> bytes | None:
    broker, keys = module.app.client.broker, module.app.client.keys
    value = broker.run(commands.hash_values(keys, "reasons", [raw_id]))[0]
    return None if value is None else value.partition(b"\n")[0]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_quarantined(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    inject(module, BAD[name])
    good = module.add.delay(1)

    worker = start_worker("-c", "1", "--drain")

    assert worker.process.wait(20) == 0, worker.log
    assert good.get(timeout=5) == 3
    assert dead_reason(module) in (b"undecodable", b"bad-arguments"), worker.log
    assert survey(module.app)["jobs.add"].balance == 0


def test_one_worker_survives_all_of_them(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    wait_until(worker.children, "a child runs")
    children = worker.children()
    ids = {}
    for name, value in BAD.items():
        ids[name] = new_id()
        inject(module, value.replace(ID, ids[name]), ids[name])

    assert module.add.delay(1).get(timeout=10) == 3
    wait_until(lambda: survey(module.app)["jobs.add"].dead == len(BAD), "all are dead letters")
    assert worker.children() == children


def test_an_id_without_a_message_is_counted_and_passed_over(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    broker, keys = module.app.client.broker, module.app.client.keys
    broker.run(Command(None, [b"RPUSH", keys["queue:jobs.add"], new_id()], lambda reply: reply))

    start_worker("-c", "1")

    assert module.add.delay(1).get(timeout=10) == 3
    assert survey(module.app)["jobs.add"].counters["dangling"] == 1


def test_unknown_tasks_are_dead_letters_in_the_end(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS, settings="unknown_after=1")
    head = encode_head("jobs.gone", "jobs.add")
    value = head[:2] + struct.pack(">d", 1.0) + head[2:] + msgpack.packb([1, ID, {}, GOOD_BODY])
    inject(module, value)
    start_worker("-c", "1")

    wait_until(lambda: dead_reason(module) == b"unknown-task", "it is a dead letter")

    with pytest.raises(TaskError, match="unknown-task"):
        module.app.AsyncResult(str(__import__("uuid").UUID(bytes=ID))).get(timeout=5)
    ledger = survey(module.app)["jobs.add"]
    assert ledger.counters["deferred"] >= 1
    assert ledger.balance == 0


@pytest.mark.parametrize("since", [float("nan"), float("inf"), 2**63, "yesterday"])
def test_an_unknown_task_that_claims_to_wait_since_never_is_a_dead_letter_too(
    since: object, jobs: Write, start_worker: Start
) -> None:
    module = jobs(JOBS, settings="unknown_after=0.5")
    head = encode_head("jobs.gone", "jobs.add")
    headers = {"unknown": since}
    inject(module, head[:2] + struct.pack(">d", 1.0) + head[2:] + msgpack.packb([1, ID, headers, GOOD_BODY]))
    start_worker("-c", "1")

    wait_until(lambda: dead_reason(module) == b"unknown-task", "it is a dead letter", 5.0)
