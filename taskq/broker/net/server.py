"""Whether a server can keep taskq's promises: its version, role, eviction policy, persistence and memory.

Looked at before a worker begins, and again and again while it runs: an operator's ``CONFIG SET``, a failover or a
growing backlog may end what was true at the start.
"""

from __future__ import annotations

import logging

from taskq.broker import call
from taskq.broker.commands import announcing, looking
from taskq.broker.pool import Broker
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import BrokerFull, BrokerUnavailable, ServerUnsuitable

log = logging.getLogger("taskq.server")

_OLDEST = (6, 2)
#: Seconds between two looks at the server, and at its ledger; for how long results are refused once memory is scarce.
WATCH_EVERY, LEDGER_EVERY, _SCARCE_FOR = 10.0, 60.0, 30.0


def check_server(broker: Broker) -> list[str]:
    """Look at the server once; returns warnings.

    Raises:
        ServerUnsuitable: Too old.
        BrokerUnavailable: No answer, or not yet: it is loading, or a replica, which a failover may promote.
    """
    info = _parse(broker.run(looking.server_info(), seconds=2.0))
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise ServerUnsuitable(f"{broker.where} is {name} {version}; taskq needs Redis 6.2 or later, or any Valkey")
    if info.get("role") == "slave":
        broker.close()  # the next look may find another server behind the same name
        raise BrokerUnavailable(f"{broker.where} is a read-only replica; it must be promoted, or the primary named")
    if info.get("loading") == "1":
        raise BrokerUnavailable(f"{broker.where} is loading its data")
    return list(_risks(info).values())


def _risks(info: dict[str, str]) -> dict[str, str]:
    """Return how the server may lose what was accepted, by cause."""
    risks = {}
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        risks["policy"] = (
            f"maxmemory-policy is {policy}: when memory is full the server will delete messages. Set it to noeviction"
        )
    if info.get("aof_enabled") == "0":
        risks["persistence"] = (
            "the append-only file is off: what the server holds is lost when it stops. Set appendonly yes"
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        risks["persistence"] = "the append-only file cannot be written: see the server's log, and its disk"
    return risks


class Watch:
    """Looks at a server again and again, and says what has changed for the worse or the better.

    Where memory is scarce, results are refused (see ``fetch.lua``): what is left is for messages.
    """

    def __init__(self, partitions: Topology, where: str, result_memory: float) -> None:
        """Watch a server (``where``, for people); results may use it up to that share of its ``maxmemory``."""
        self._partitions = partitions
        self._where = where
        self._share = result_memory
        self._info: dict[str, str] = {}

    def look(self) -> Protocol[None]:
        """Look once; what is true at the first look was said at the start."""
        before, self._info = self._info, _parse((yield looking.server_info()))
        risks = _risks(self._info)
        if before:
            self._tell_of_risks(_risks(before), risks)
            self._tell_of_losses(before)
        limit, used = _number(self._info, "maxmemory"), _number(self._info, "used_memory")
        scarce = limit > 0 and used > self._share * limit
        if scarce:
            try:
                for keys in self._partitions.all:
                    yield announcing.refuse_results(keys, _SCARCE_FOR)
            except BrokerFull:
                pass  # then the scripts see it themselves
        was = _number(before, "maxmemory")
        was_scarce = was > 0 and _number(before, "used_memory") > self._share * was
        if scarce and not was_scarce:
            log.warning(
                "%s uses %.0f %% of its maxmemory: results are not kept above %.0f %% (result_memory), so that "
                "messages have room; waiting callers get theirs", self._where, 100 * used / limit, 100 * self._share,
            )  # fmt: skip
        elif was_scarce and not scarce:
            log.warning("%s has memory for results again", self._where)

    def _tell_of_risks(self, before: dict[str, str], risks: dict[str, str]) -> None:
        for what, text in risks.items():
            if before.get(what) != text:
                log.error("%s: %s", self._where, text)
        for what in before.keys() - risks.keys():
            log.warning("%s: %s is as it should be again", self._where, what)

    def _tell_of_losses(self, before: dict[str, str]) -> None:
        now = self._info
        if now.get("run_id") != before.get("run_id"):
            log.warning("%s is another process than before: it was started anew, or replaced", self._where)
            return
        if now.get("role") != before.get("role"):
            log.error("%s is a %s now, and was a %s", self._where, now.get("role"), before.get("role"))
        evicted = _number(now, "evicted_keys") - _number(before, "evicted_keys")
        if evicted > 0:
            log.error(
                "%s has deleted %d keys for lack of memory (maxmemory-policy %s), and messages may be among what they "
                "held. Set it to noeviction", self._where, evicted, now.get("maxmemory_policy"),
            )  # fmt: skip


class Ledger:
    """How much each queue had accepted at the last look: messages vanish from a server without any error."""

    def __init__(self, partitions: Topology) -> None:
        """Begin knowing nothing."""
        self._partitions = partitions
        self._accepted: dict[str, int] = {}

    def look(self) -> Protocol[None]:
        """Say of which queues the server knows less than it did."""
        counters: dict[bytes, bytes] = {}
        for keys in self._partitions.all:
            counters |= yield call.whole_hash(keys, "counters")
        accepted = {
            call.readable(field[: -len("|accepted")]): int(n)
            for field, n in counters.items()
            if field.endswith(b"|accepted") and n.isdigit()
        }
        for queue, before in self._accepted.items():
            if accepted.get(queue, 0) < before:
                log.error(
                    "the server has lost what it knew of queue %s: it had accepted %d messages, and says %d now. It "
                    "was emptied, restored from an older copy, or deletes keys", queue, before, accepted.get(queue, 0),
                )  # fmt: skip
        self._accepted = accepted


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdigit() else 0


def _parse(info: object) -> dict[str, str]:
    text = info.decode(errors="replace") if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
