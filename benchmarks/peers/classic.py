"""No task queue: a list, and another for messages in progress: RPUSH, BLMOVE, LREM. Nothing recovers after a crash."""

from __future__ import annotations

from typing import Any

from redis import Redis

from benchmarks.peers import URL, note_start

REQUIREMENTS: list[str] = []
WORKER = ["-m", "benchmarks.peers.classic"]

client = Redis.from_url(URL)
#: As many bytes as the envelope of a small call.
PADDING = b" " * 90


def start(sent_ns: int) -> object:
    return client.rpush("classic:from", b"%d%b" % (sent_ns, PADDING))


def send() -> object:
    return start(0)


ask = None


def remaining(client: Any) -> int:
    return int(client.llen("classic:from") + client.llen("classic:to"))


if __name__ == "__main__":
    while True:
        taken = client.blmove("classic:from", "classic:to", 0, "LEFT", "RIGHT")
        note_start(int(taken))
        client.lrem("classic:to", 1, taken)
