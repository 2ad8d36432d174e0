"""Thousands of messages that no taskq wrote, made at random from a seed: each is put aside, the worker lives on."""

from __future__ import annotations

import functools
import random
import struct
from typing import Any

import msgpack

from taskq.broker.call import Command
from taskq.message.head import encode_head
from taskq.message.ids import new_id
from taskq.worker.parent.watch import resident_bytes
from tests.support import SEED, SOAK, Start, Write, survey, wait_until

JOBS = """
@app.task
def add(a, b=2):
    return 1

@app.task
async def aadd(a, b=2):
    return 1
"""

NAMES = [
    *("jobs.add", "jobs.aadd", "os.system", "__import__", "../x", "a.b.__class__", "(a+)+$", "{x}", "x y", "\n", "*"),
    *("\x00", "‮", "é" * 100, "x" * 255),
]
VALUES = [
    *(None, True, 0, -1, 2**63, 2**64 - 1, -(2**63), 0.0, float("nan"), float("inf"), float("-inf"), 1e308, "", "x"),
    *(
        "\x00",
        "\ud800",
        b"",
        b"\xff" * 100,
        [],
        {},
        [[]],
        {"a": {}},
        {1: 2},
        {b"k": 1},
        {"self": 1, "ctx": 2},
        "1" * 10_000,
    ),
    *(msgpack.ExtType(42, b"x"), msgpack.ExtType(1, b""), msgpack.Timestamp(1, 2), [1] * 1000),
    functools.reduce(lambda inner, _: [inner], range(900), []),
]
HEADERS = [
    "sig",
    "retries",
    "first",
    "idle",
    "slept",
    "error",
    "unknown",
    "ignore",
    "user",
    "eta",
    "retry",
    "expires",
    "x",
]


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


class Maker:
    """Makes messages of a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def message(self, raw_id: bytes) -> bytes:
        """Make the stored value of a message: well formed with odd contents, or damaged, or noise."""
        made = self.chance.choice([self.odd, self.odd, self.damaged, self.damaged, self.deep, self.noise])(raw_id)
        return made or b"\x00"

    def odd(self, raw_id: bytes) -> bytes:
        chance = self.chance
        headers = {chance.choice(HEADERS): chance.choice(VALUES) for _ in range(chance.randrange(5))}
        body: Any = pack(
            [chance.choice([[1], [1, 2], chance.choice(VALUES)]), chance.choice([{}, chance.choice(VALUES)])]
        )
        if chance.random() < 0.1:
            body = chance.choice(VALUES)
        parts = [chance.choice([1, 1, 1, 1, *VALUES]), raw_id, chance.choice([headers, headers, *VALUES]), body]
        if chance.random() < 0.1:
            chance.shuffle(parts)
        return self.head() + pack(parts[: chance.choice([4, 4, 4, 4, 3])])

    def head(self) -> bytes:
        task = self.chance.choice(["jobs.add", "jobs.add", "jobs.aadd", *NAMES])
        head = b"\x01\x00" + b"".join(bytes([len(raw)]) + raw for raw in (task.encode()[:255], b"jobs.add"))
        if task == "jobs.add":
            assert head == encode_head("jobs.add", "jobs.add")
        return head[:2] + struct.pack(">d", self.chance.choice([1.0, 0.0, float("nan"), 1e300])) + head[2:]

    def good(self, raw_id: bytes) -> bytes:
        head = encode_head("jobs.add", "jobs.add")
        return head[:2] + struct.pack(">d", 1.0) + head[2:] + pack([1, raw_id, {}, pack([[1], {}])])

    def damaged(self, raw_id: bytes) -> bytes:
        value = bytearray(self.chance.choice([self.good, self.odd])(raw_id))
        for _ in range(self.chance.randrange(1, 4)):
            at = self.chance.randrange(len(value) + 1)
            match self.chance.randrange(4):
                case 0:
                    del value[at:]
                case 1:
                    value[at:at] = self.chance.randbytes(self.chance.randrange(1, 9))
                case 2 if at < len(value):
                    value[at] ^= 1 << self.chance.randrange(8)
                case _:
                    del value[at : at + self.chance.randrange(1, 5)]
        return bytes(value)

    def deep(self, raw_id: bytes) -> bytes:
        levels = self.chance.choice([31, 33, 100, 1000, 1025, 20_000])
        opening = self.chance.choice([b"\x91", b"\x81\xa1k"])
        length = struct.pack(">I", self.chance.choice([2**32 - 1, 2**31 - 1, 100_001]))
        body = self.chance.choice(
            [
                b"\x92\x91" + opening * levels + b"\xc0\x80",
                b"\x92" + self.chance.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb"]) + length,
            ]
        )
        return self.good(raw_id)[: 10 + 18] + pack([1, raw_id, {}, body])

    def noise(self, raw_id: bytes) -> bytes:
        return self.chance.randbytes(self.chance.randrange(0, 200))


def test_a_worker_survives_thousands_of_malformed_messages(jobs: Write, start_worker: Start) -> None:
    print("seed", SEED)
    module, maker = jobs(JOBS, settings="unknown_after=1"), Maker(SEED)
    broker, keys = module.app.client.broker, module.app.client.keys
    worker = start_worker("-c", "1")
    assert module.add.delay(1).get(timeout=30) == 1
    children = worker.children()
    before = resident_bytes(children[0])
    n = 20_000 if SOAK else 2000

    for _ in range(0, n, 500):
        ids = [new_id() for _ in range(500)]
        fields = [word for raw_id in ids for word in (raw_id, maker.message(raw_id))]
        for words in (
            [b"HSET", keys["messages"], *fields],
            [b"RPUSH", keys["queue:jobs.add"], *ids],
            [b"HINCRBY", keys["counters"], b"jobs.add|accepted", len(ids)],
        ):
            broker.run(Command(None, words, lambda reply: reply))
    innocent = module.add.delay(1)

    def all_have_ended() -> bool:
        queues = survey(module.app)
        return not any(
            (q.pending and name == "jobs.add") or q.processing or q.suspects for name, q in queues.items()
        ) and not (broker.run(Command(None, [b"ZCARD", keys["schedule"]], int)))

    wait_until(all_have_ended, "all are dead letters or done", 60)
    assert innocent.get(timeout=5) == 1
    assert worker.children() == children, worker.log
    assert sum(queue.balance for queue in survey(module.app).values()) == 0
    reasons = {
        reason.partition(b"\n")[0] for reason in broker.run(Command(None, [b"HVALS", keys["reasons"]], lambda r: r))
    }
    assert reasons <= {b"undecodable", b"bad-arguments", b"unknown-task", b"failed", b"unreadable"}, reasons
    assert resident_bytes(children[0]) - before < 64 << 20
