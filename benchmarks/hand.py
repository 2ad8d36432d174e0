"""The loops that a careful person would write by hand, to compare with: the least that has the same effect.

* ``worker``: redis-py and one script over taskq's key layout; a call settles a batch of 64 and takes the next. It
  reads envelope and body and calls the function. No leases, no fences, no counters, no results, no errors.
* ``send``: the very bytes that ``delay()`` sends, through the connection's public methods.
* ``pass_on``: the bare hand-over between two processes: RPUSH on one side, BLMOVE on the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgpack
import redis

from benchmarks.tasks import app

BATCH = 64

_SETTLE_AND_TAKE = """
local messages, queue, processing = KEYS[1], KEYS[2], KEYS[3]
local done = {}
for i = 1, #ARGV[2], 16 do done[#done + 1] = string.sub(ARGV[2], i, i + 15) end
if #done > 0 then
  redis.call('HDEL', processing, unpack(done))
  redis.call('HDEL', messages, unpack(done))
end
local ids = redis.call('LPOP', queue, ARGV[1])
if not ids then return { {}, {} } end
local fields = {}
for i, id in ipairs(ids) do
  fields[2 * i - 1] = id
  fields[2 * i] = '1'
end
redis.call('HSET', processing, unpack(fields))
return { ids, redis.call('HMGET', messages, unpack(ids)) }
"""


def worker(queue: str) -> None:
    """Drain a queue for ever."""
    client = redis.Redis.from_url(os.environ["TASKQ_URL"])
    settle_and_take = client.register_script(_SETTLE_AND_TAKE)
    keys = [app.client.keys[name] for name in ("messages", f"queue:{queue}", "processing:hand")]
    functions = {task.name.encode(): task.function for task in app.tasks.values()}
    unpack, done = msgpack.unpackb, b""
    while True:
        ids, values = settle_and_take(keys, [BATCH, done])
        for value in values:
            end = 11 + value[10]
            _, _, _, body = unpack(value[end + 1 + value[end] :])
            args, kwargs = unpack(body)
            functions[value[11:end]](*args, **kwargs)
        done = b"".join(ids)
        if not ids:
            time.sleep(0.002)


def send(packed: Sequence[bytes]) -> float:
    """Send commands written beforehand; returns the CPU seconds it took."""
    pool = redis.ConnectionPool.from_url(os.environ["TASKQ_URL"])
    connection = pool.get_connection()
    write, read = connection.send_packed_command, connection.read_response
    connection.connect()
    began = time.process_time()
    for command in packed:
        write((command,), check_health=False)
        read()
    return time.process_time() - began


def pass_on(n: int) -> None:
    """Take what the other process hands over, and note how long it took from before its RPUSH to here."""
    client = redis.Redis.from_url(os.environ["TASKQ_URL"])
    with open(os.environ["BENCH_LOG"], "w") as log:
        for _ in range(n):
            sent = client.blmove("hand:from", "hand:to", 0, "LEFT", "RIGHT")
            log.write(f"{time.monotonic_ns() - int(sent)}\n")
            log.flush()


if __name__ == "__main__":
    import sys

    worker(sys.argv[1])
