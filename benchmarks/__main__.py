"""``python -m benchmarks``: run the scenarios in interleaved repeats, print medians and ratios."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import lab, profile, report
from benchmarks.scenarios import (
    Bench,
    Scenario,
    alone,
    comparison,
    flow,
    footprint,
    growth,
    latency,
    partitions,
    throughput,
    trouble,
)

SCENARIOS: dict[str, Scenario] = {
    "drain": throughput.drain,
    "send": throughput.send,
    "size": throughput.size,
    "start": latency.start,
    "round-trip": latency.round_trip,
    "on-time": latency.on_time,
    "waits": latency.waits,
    "lone": alone.lone,
    "trickle": alone.trickle,
    "idle": footprint.idle,
    "startup": footprint.startup,
    "first": footprint.first,
    "flow": flow.flow,
    "partitions": partitions.partitions,
    "growth-waiting": growth.waiting,
    "growth-queues": growth.queues,
    "growth-scheduled": growth.scheduled,
    "growth-workers": growth.workers,
    "slow": trouble.slow,
    "kills": trouble.kills,
}
#: Those that take a minute or more are repeated at most twice.
LONG = {"idle", "growth-waiting", "growth-scheduled", "slow", "kills"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, "peers"], help="may be given again")
    parser.add_argument("--repeats", type=int, help="5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small numbers, a minute or two in all")
    parser.add_argument("--peers", default="", metavar="A,B", help="files of benchmarks/peers to compare with")
    parser.add_argument("--cache", type=Path, help="where the peers' environments are kept")
    parser.add_argument("--json", type=Path, help="write every sample here")
    parser.add_argument("--svg", type=Path, help="draw the comparison with peers here")
    parser.add_argument("--profile", action="store_true", help="only show where a child's time goes")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    return parser.parse_args()


def _environments(options: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each peer to compare with, taskq and the hand loop among them if there is any."""
    peers = [name for name in options.peers.split(",") if name]
    cache = options.cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "taskq-benchmarks"
    if peers or options.svg or "peers" in (options.only or ()):
        peers = ["hand", "taskq", *(name for name in peers if name not in ("hand", "taskq"))]
    return {name: comparison.environment(name, cache) for name in peers}


def _run(bench: Bench, options: argparse.Namespace) -> dict[str, list[float]]:
    """All repeats of all scenarios; the samples by series."""
    series: dict[str, list[float]] = defaultdict(list)
    environments = bench.peers = _environments(options)
    if options.only and "peers" not in options.only:
        environments = {}
    scenarios = {name: function for name, function in SCENARIOS.items() if name in (options.only or SCENARIOS)}
    repeats = options.repeats or (1 if options.quick else 5)
    for repeat in range(repeats):
        for name, scenario in scenarios.items():
            if repeat < 2 or name not in LONG:
                _collect(series, name, scenario(bench))
        for name, python in environments.items():
            _collect(series, f"peer {name}", comparison.compare(bench, name, python))
    return dict(series)


def _collect(series: dict[str, list[float]], name: str, samples: object) -> None:
    began = time.monotonic()
    for key, value in samples:  # type: ignore[attr-defined]
        series[key].append(value)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Run what the command line asks for."""
    options = _arguments()
    from taskq.broker.net.embedded import server_program

    lab.observe_from_elsewhere()
    with tempfile.TemporaryDirectory(prefix="taskq-bench-") as folder:
        server = lab.OwnServer(server_program(), Path(folder))
        try:
            bench = Bench(server, Path(folder), options.quick)
            info = server.info()
            version = info.get("valkey_version") or info["redis_version"]
            if options.quick:
                bench.remark("--quick: the numbers of messages, queues and workers are smaller than the table says")
            if options.profile:
                print(profile.sampled(bench, bench.n(1_000_000, 100_000)))
                return
            series = _run(bench, options)
        finally:
            server.stop()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    about = {"python": python, "server": str(version), "cores": str(len(lab.CORES)), "date": time.strftime("%Y-%m-%d")}
    print(report.text(series, bench.remarks, options.markdown))
    print(f"\n{python}, server {version}, {len(lab.CORES)} cores, {about['date']}")
    if options.json:
        report.write_json(options.json, series, about, bench.remarks)
    if options.svg:
        options.svg.write_text(report.chart(series))


if __name__ == "__main__":
    main()
