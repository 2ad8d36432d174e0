"""The table: which series are compared, and what the targets are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, list[float]]


@dataclass(frozen=True)
class Figure:
    """One line: a series, as it is or divided by another, and its limit."""

    what: str
    ours: str
    base: str = ""
    limit: float | None = None
    unit: str = "µs"
    at_least: bool = False

    def ratios(self, series: Series) -> list[float]:
        """What is compared with the limit, one value per repeat: the ratio to the base, or the value itself."""
        ours = series[self.ours]
        if not self.base:
            return ours
        return [a / b for a, b in zip(ours, series[self.base], strict=False)]

    def reached(self, series: Series) -> bool | None:
        """Whether the median keeps within the limit; None if there is no limit."""
        if self.limit is None:
            return None
        median = statistics.median(self.ratios(series))
        return median >= self.limit if self.at_least else median <= self.limit

    def noise(self, series: Series) -> float:
        """Half of the spread of what is compared, as a part of its median."""
        values = self.ratios(series)
        median = statistics.median(values)
        return (max(values) - min(values)) / 2 / median if median else 0.0


def _growth(what: str, name: str, few: str, many: str, server: float) -> list[Figure]:
    return [
        Figure(f"{what}: worker", f"growth.{name}.{many}.worker", f"growth.{name}.{few}.worker", 1.25),
        Figure(f"{what}: server", f"growth.{name}.{many}.server", f"growth.{name}.{few}.server", server),
    ]


def _flow(what: str, name: str, server: float | None = None) -> list[Figure]:
    return [
        Figure(f"{what}: delay()", f"flow.{name}.delay", "flow.off.delay"),
        Figure(f"{what}: delay_many", f"flow.{name}.bulk", "flow.off.bulk"),
        Figure(f"{what}: server, in bulk", f"flow.{name}.accept", "flow.off.accept"),
        Figure(f"{what}: worker", f"flow.{name}.worker", "flow.off.worker"),
        Figure(f"{what}: server, to drain", f"flow.{name}.server", "flow.off.server", server),
    ]


FIGURES = [
    Figure("drain, no results: worker CPU / hand loop", "drain.taskq.noop.worker", "drain.hand.noop.worker", 2.0),
    Figure("drain, no results: server CPU / hand loop", "drain.taskq.noop.server", "drain.hand.noop.server", 1.5),
    Figure("drain, no results: rate / hand loop", "drain.taskq.noop.rate", "drain.hand.noop.rate", 0.5, "/s", True),
    Figure("drain, results: worker CPU / hand loop", "drain.taskq.noop_result.worker", "drain.hand.noop.worker", 3.0),
    Figure("drain, results: server CPU / hand loop", "drain.taskq.noop_result.server", "drain.hand.noop.server", 2.5),
    Figure("drain, results: rate", "drain.taskq.noop_result.rate", unit="/s"),
    Figure("delay(), no argument: client CPU / raw bytes", "send.delay.0", "send.raw.0", 1.4),
    Figure("delay(), 100 bytes: client CPU / raw bytes", "send.delay.100", "send.raw.100", 1.4),
    Figure("delay(), 10 KB: client CPU / delay(), 100 bytes", "send.delay.10000", "send.delay.100", 2.0),
    Figure("delay_many, no argument: client CPU / delay()", "send.bulk.0", "send.delay.0", 0.25),
    Figure("delay_many, 100 bytes: client CPU / delay()", "send.bulk.100", "send.delay.100", 0.25),
    Figure("drain, 10 KB: worker CPU / hand loop", "drain.taskq.take_10k.worker", "drain.hand.take_10k.worker", 1.5),
    Figure("drain, 10 KB: server CPU / hand loop", "drain.taskq.take_10k.server", "drain.hand.take_10k.server", 1.5),
    Figure("delay() to start, p50 / bare hand-over", "start.p50", "handover.p50", 1.6, "ms"),
    Figure("delay() to start, p99 / bare hand-over", "start.p99", "handover.p99", 2.0, "ms"),
    Figure("delay().get(), p50 / bare hand-over", "roundtrip.p50", "handover.p50", 2.5, "ms"),
    Figure("a lone message: server CPU / RPUSH, BLMOVE, LREM", "lone.taskq.hot", "lone.classic.hot"),
    Figure("the same, one every 5 ms", "lone.taskq.spread", "lone.classic.spread"),
    Figure("accepting one message: server CPU / RPUSH", "lone.taskq.accept", "lone.classic.accept", 2.5),
    Figure("a scheduled message starts after its time, p50", "scheduled.p50", limit=20.0, unit="ms"),
    Figure("a scheduled message starts after its time, p99", "scheduled.p99", limit=20.0, unit="ms"),
    Figure("a tick of a periodic entry starts after its time, p50", "tick.p50", limit=20.0, unit="ms"),
    Figure("a tick of a periodic entry starts after its time, p99", "tick.p99", limit=20.0, unit="ms"),
    Figure("2,000 x 50 ms, 100 coroutines at once", "waits.async", limit=1.15, unit="s"),
    Figure("2,000 x 50 ms, 100 threads", "waits.sync", limit=1.3, unit="s"),
    Figure("idle, 4 children: commands a second", "idle.sync.commands", limit=3.0, unit="/s"),
    Figure("idle, 4 children with event loops: commands a second", "idle.both.commands", limit=3.0, unit="/s"),
    Figure("idle, 4 children: CPU", "idle.sync.cpu", limit=0.3, unit="%"),
    Figure("idle, 4 children with event loops: CPU", "idle.both.cpu", limit=0.3, unit="%"),
    Figure("idle: PSS of the parent", "idle.both.parent", limit=30.0, unit="MB"),
    Figure("idle: PSS of a child", "idle.sync.child", limit=12.0, unit="MB"),
    Figure("idle: PSS of a child with an event loop", "idle.both.child", limit=12.0, unit="MB"),
    Figure("taskq --help: CPU / bare interpreter", "startup.help", "startup.bare", 10.0, "ms"),
    Figure("import taskq: CPU / bare interpreter", "startup.import", "startup.bare", 6.0, "ms"),
    Figure("a worker's start to the end of its first message", "first.seconds", limit=0.6, unit="s"),
    Figure("PSS of a worker with one child", "first.pss", limit=42.0, unit="MB"),
    *_flow("priority=", "priority"),
    *_flow("fair_by=, 100 keys", "fair", 1.8),
    *_flow("rate=", "rate"),
    *_flow("max_concurrency=", "concurrency"),
    *_flow("max_concurrency= for each of 100 keys", "keyed"),
    *_flow('unique="until_done"', "unique"),
    *_flow("max_length=", "length"),
    *_flow("breaker=", "breaker"),
    Figure("4 partitions: delay() to start, p50 / in 1", "partitions.4.p50", "partitions.1.p50", 1.3, "ms"),
    Figure("4 partitions: drain, worker CPU / in 1", "partitions.4.worker", "partitions.1.worker", 1.15),
    Figure("4 partitions: drain, server CPU / in 1", "partitions.4.server", "partitions.1.server", 1.15),
    Figure("4 partitions: idle, commands a second / in 1", "partitions.4.idle", "partitions.1.idle", 2.0, "/s"),
    *_growth("1,000 → 1,000,000 waiting", "waiting", "few", "many", 1.6),
    Figure("server memory a waiting message, beyond its envelope", "growth.waiting.overhead", limit=110, unit="bytes"),
    *_growth("1 → 500 queues, one busy", "queues", "one", "one_busy", 1.25),
    *_growth("1 → 500 queues, all busy", "queues", "one", "all_busy", 1.25),
    *_growth("10 → 1,000,000 scheduled, others run", "scheduled", "few", "many", 1.25),
    *_growth("10 → 1,000,000 scheduled, others come due and run", "due", "few", "many", 1.25),
    *_growth("1 → 200 workers", "workers", "one", "many", 1.25),
    Figure("200 x 1 s among 20,000: total / ideal", "slow.total", limit=1.1, unit=""),
    Figure("200 x 1 s among 20,000: longest wait in a child", "slow.held", limit=50, unit="ms"),
    Figure("six kills: lost", "kills.lost", limit=0, unit=""),
    Figure("six kills: runs more than one", "kills.repeats", unit=""),
    Figure("six kills: of these not explained by a kill", "kills.unexplained", limit=0, unit=""),
    Figure("six kills: a child's message runs again", "kills.child", limit=1.0, unit="s"),
    Figure("six kills: a whole worker's message runs again", "kills.worker", limit=16.0, unit="s"),
]


def peer_figures(series: Series) -> list[Figure]:
    """Comparisons with the peers that were measured: with the leanest, and with the leanest at-least-once one."""
    names = {name.split(".")[1] for name in series if name.startswith("peer.")} - {"taskq", "hand", "classic"}
    safe = names & AT_LEAST_ONCE
    figures = []

    def leanest(among: set[str], column: str) -> str:
        return min(among, key=lambda name: statistics.median(series[f"peer.{name}.{column}"]))

    if safe:
        best = leanest(safe, "worker")
        figures.append(Figure(f"worker CPU / {best}", "peer.taskq.worker", f"peer.{best}.worker", 1 / 25))
    if "celery" in names:
        figures.append(Figure("worker CPU / celery", "peer.taskq.worker", "peer.celery.worker", 1 / 150))
    for among in (names, safe):
        if among:
            best = leanest(among, "producer")
            figures.append(Figure(f"delay() / {best}", "peer.taskq.producer", f"peer.{best}.producer", 1 / 4))
    return list(dict.fromkeys(figures))


def trickle_figures(series: Series) -> list[Figure]:
    """What a call every 5 ms costs the server: against the classic list, and against the peers that have a limit."""
    limits = {"classic": 2.2, "celery": 1.0, "dramatiq": 0.7}
    ours = "trickle.taskq.server"
    figures = [
        Figure(f"a call every 5 ms: server CPU / {name}", ours, f"trickle.{name}.server", limit)
        for name, limit in limits.items()
    ]
    return [figure for figure in figures if series.keys() >= {figure.ours, figure.base}]


#: Peers that, as configured here, run a task again when its worker has died. (huey has removed it by then.)
AT_LEAST_ONCE = {"celery", "dramatiq", "taskiq", "arq", "saq", "rq"}
#: What is measured of each peer: series, title, digits.
PEER_COLUMNS = [
    ("producer", "send, producer µs", 1),
    ("worker", "drain, worker µs", 1),
    ("server", "drain, server µs", 1),
    ("commands", "commands a task", 2),
    ("rate", "tasks/s", 0),
    ("p50", "round trip p50 ms", 2),
]
#: The same of a call every 5 ms.
TRICKLE_COLUMNS = [
    ("producer", "producer µs", 0),
    ("worker", "worker µs", 0),
    ("server", "server µs", 0),
    ("start", "start p50 ms", 2),
    ("ask", "round trip p50 ms", 2),
]
