"""What is said of a server that changes while workers run, and of what vanishes from it."""

from __future__ import annotations

import logging

import pytest

from taskq.broker.call import Command
from taskq.broker.keys import Keys
from taskq.broker.net.server import Ledger, Watch
from taskq.errors import BrokerFull

GOOD = {
    "run_id": "one", "role": "master", "maxmemory_policy": "noeviction", "maxmemory": "1000", "used_memory": "100",
    "aof_enabled": "1", "aof_last_write_status": "ok", "evicted_keys": "0",
}  # fmt: skip


class Watched:
    """A server that answers INFO as the test says, and what the watch says and does then."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.watch = Watch(Keys("app"), "here", 0.9)
        self.caplog = caplog
        self.refuses: list[Command[object]] = []
        self.full = False

    def look(self, **now: str) -> list[str]:
        """Look once; answers what was said."""
        self.caplog.clear()
        steps, reply = self.watch.look(), None
        try:
            while True:
                step = steps.send(reply) if not isinstance(reply, Exception) else steps.throw(reply)
                assert isinstance(step, Command)
                if step.args == [b"INFO"]:
                    reply = "\r\n".join(f"{k}:{v}" for k, v in {**GOOD, **now}.items()).encode()
                else:
                    self.refuses.append(step)
                    reply = BrokerFull("full") if self.full else b"OK"
        except StopIteration:
            return [record.getMessage() for record in self.caplog.records]


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO)
    return Watched(caplog)


def test_nothing_is_said_of_a_server_that_stays_as_it_was(server: Watched) -> None:
    assert [server.look(maxmemory_policy="allkeys-lru") for _ in range(3)] == [[], [], []], "the start has said it"
    assert server.refuses == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"aof_enabled": "0"}, "append-only file is off"),
        ({"aof_last_write_status": "err"}, "append-only file cannot be written"),
        ({"role": "slave"}, "is a slave now, and was a master"),
        ({"run_id": "two"}, "another process than before"),
        ({"evicted_keys": "804", "maxmemory_policy": "allkeys-lru"}, "has deleted 804 keys"),
    ],
)
def test_a_change_for_the_worse_is_said_once_and_the_end_of_it_as_well(
    server: Watched, now: dict[str, str], said: str
) -> None:
    server.look()

    assert said in " ".join(server.look(**now))
    assert server.look(**now) == []
    assert "maxmemory_policy" not in now or "policy is as it should be again" in " ".join(server.look())


def test_results_are_refused_while_memory_is_scarce(server: Watched) -> None:
    assert "results are not kept above 90 % (result_memory)" in " ".join(server.look(used_memory="950"))
    assert server.look(used_memory="950") == []
    server.full = True
    assert server.look(used_memory="1200") == [], "then the scripts see it themselves"
    assert len(server.refuses) == 3
    assert server.look(used_memory="500") == ["here has memory for results again"]
    assert len(server.refuses) == 3


def test_a_server_without_a_limit_has_memory(server: Watched) -> None:
    assert (server.look(maxmemory="0", used_memory="9999999"), server.refuses) == ([], [])


def test_the_ledger_says_once_what_has_vanished(caplog: pytest.LogCaptureFixture) -> None:
    """As where the keys of an app were evicted: there is nothing left in which an audit could find a difference."""
    ledger = Ledger(Keys("app"))

    def look(**counters: bytes) -> list[str]:
        caplog.clear()
        steps = ledger.look()
        next(steps)
        with pytest.raises(StopIteration):
            steps.send({name.replace("_", "|").encode(): value for name, value in counters.items()})
        return [record.getMessage() for record in caplog.records]

    assert look(q_accepted=b"804", q_done=b"7", p_accepted=b"1") == []
    assert look(q_accepted=b"805", p_accepted=b"1") == []
    assert look(q_accepted=b"3", p_accepted=b"many") == [
        "the server has lost what it knew of queue q: it had accepted 805 messages, and says 3 now. It was emptied, "
        "restored from an older copy, or deletes keys",
        "the server has lost what it knew of queue p: it had accepted 1 messages, and says 0 now. It was emptied, "
        "restored from an older copy, or deletes keys",
    ]
    assert look(q_accepted=b"3") == []
    assert "had accepted 3 messages, and says 0 now" in " ".join(look())
    assert look() == []
