"""Messages that no taskq wrote: each is put aside with a reason, and the worker lives on."""

from __future__ import annotations

import struct
from types import ModuleType

import msgpack
import pytest

from taskq import TaskError
from taskq.broker import call
from taskq.broker.call import Command
from taskq.message.head import encode_head
from taskq.message.ids import new_id
from tests.support import Start, Write, survey, wait_until

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


def nested_ext(code: int, levels: int) -> bytes:
    """Extension types within one another."""
    value = msgpack.packb([])
    for _ in range(levels):
        value = msgpack.packb([msgpack.ExtType(code, value)])
    return bytes(value)


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

#: These too, for one worker in a row.
MORE = {
    "a version that is no number": envelope("1", ID, {}, GOOD_BODY),
    "a version of the far future": envelope(2**31, ID, {}, GOOD_BODY),
    "a task that is no text": HEAD[:2] + struct.pack(">d", 1.0) + b"\x02\xff\xfe\x08jobs.add" + GOOD_BODY,
    "more after the body": envelope(1, ID, {}, GOOD_BODY + b"\x00"),
    "a body cut short": envelope(1, ID, {}, GOOD_BODY[:-1]),
    "an empty body": envelope(1, ID, {}, b""),
    "1001 levels in the body": envelope(1, ID, {}, b"\x92" + b"\x91" * 1000 + b"\x90" + b"\x80"),
    "100,000 maps in the body": envelope(1, ID, {}, b"\x92\x91" + b"\x81\xa1k" * 100_000 + b"\xc0\x80"),
    "1001 levels in the headers": STAMPED + b"\x94\x01\xc4\x10" + ID + b"\x81\xa1x" + b"\x91" * 1001 + b"\xc0\xc4\0",
    "100 sets in the body": envelope(1, ID, {}, b"\x92\x91" + nested_ext(7, 100) + b"\x80"),
    "an extension in the headers": envelope(1, ID, {"x": msgpack.ExtType(42, b"")}, GOOD_BODY),
    "a moment beyond the years": envelope(1, ID, {}, msgpack.packb([[msgpack.Timestamp(2**62, 0)], {}])),
    "a date that is none": envelope(1, ID, {}, msgpack.packb([[msgpack.ExtType(2, b"\xa2no")], {}])),
    "a key that is no text": envelope(1, ID, {}, b"\x92\x91\x01\x81\x01\x02"),
    "a key that is no UTF-8": envelope(1, ID, {}, b"\x92\x91\x01\x81\xa1\xff\x02"),
    "a text of 4 GB": envelope(1, ID, {}, b"\x92\x91\xdb\xff\xff\xff\xff"),
    "a map of 4 G": envelope(1, ID, {}, b"\x92\x91\xdf\xff\xff\xff\xff"),
    "an extension of 4 GB": envelope(1, ID, {}, b"\x92\x91\xc9\xff\xff\xff\xff\x07"),
    "headers that are a map of 4 G": STAMPED + b"\x94\x01\xc4\x10" + ID + b"\xdf\xff\xff\xff\xff",
    "2 MB of nothing": envelope(1, ID, {}, b"\x92\x91\xc6\x00\x20\x00\x00" + bytes(2 << 20) + b"\x80"),
    "2 MB of empty maps": envelope(1, ID, {}, b"\x92\x91\xdd\x00\x20\x00\x00" + b"\x80" * (2 << 20) + b"\x80"),
    "2 MB of headers": envelope(1, ID, {"x": "x" * (2 << 20)}, GOOD_BODY),
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
    value = broker.run(call.hash_values(keys, "reasons", [raw_id]))[0]
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
    for name, value in (BAD | MORE).items():
        ids[name] = new_id()
        inject(module, value.replace(ID, ids[name]), ids[name])

    assert module.add.delay(1).get(timeout=30) == 3
    wait_until(lambda: survey(module.app)["jobs.add"].dead == len(ids), "all are dead letters")
    reasons = {name: dead_reason(module, raw_id) for name, raw_id in ids.items()}
    assert set(reasons.values()) == {b"undecodable", b"bad-arguments"}, reasons
    assert worker.children() == children


def test_an_id_without_a_message_is_counted_and_passed_over(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    broker, keys = module.app.client.broker, module.app.client.keys
    broker.run(Command(None, [b"RPUSH", keys["queue:jobs.add"], new_id()], lambda reply: reply))

    start_worker("-c", "1")

    assert module.add.delay(1).get(timeout=30) == 3
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
