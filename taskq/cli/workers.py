"""``taskq workers``: who is there, how each is, and what it holds; needs no app's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.output import Listing, json_option, seconds
from taskq.cli.tables import Cell, Column, age, moment, one_line

if TYPE_CHECKING:
    from taskq.views.workers import Lane, Worker

_COLUMNS = (
    Column("WORKER", whole=True),
    Column("APP", spare=True),
    Column("HOST", spare=True),
    Column("PID", number=True),
    Column("STATE"),
    Column("CHILDREN", "CHILD", number=True),
    Column("HOLDS", number=True),
    Column("RSS", number=True),
    Column("UP", number=True),
    Column("LEASE", number=True),
    Column("VERSION", "VERS", spare=True, extra=True),
    Column("QUEUES"),
)
_LANES = (
    Column("CHILD", number=True),
    Column("PID", number=True),
    Column("LANE"),
    Column("INCARNATION", whole=True),
    Column("RSS", number=True),
    Column("UP", number=True),
    Column("HOLDS", number=True),
    Column("OLDEST", number=True),
    Column("LEASE", number=True),
    Column("QUEUES"),
)


@click.command()
@click.argument("name", metavar="[WORKER]", required=False)
@names_option
@url_option
@json_option
def command(name: str | None, names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Show the workers: a line each, or of one WORKER a line for each lane of its children.

    STATE is busy, idle, quiet (it takes no more) or stopping. HOLDS counts messages that it runs, or will within
    milliseconds. RSS is the memory of its processes in MiB; what they share is counted each time. LEASE is how long its
    lease still lasts: it is renewed every few seconds, and what a worker holds whose lease has ended goes to others.
    Workers report state, RSS and UP every ten seconds. Exit codes: 0 shown, 2 wrong usage or no server, or no such
    worker.
    """
    from taskq.broker.commands import looking
    from taskq.views.apps import apps_at
    from taskq.views.workers import named, workers_of

    with reaching(url) as broker:
        apps, now = broker.perform(apps_at(broker.where, names)), broker.run(looking.server_time())
        found: Sequence[Worker] = [worker for one_app in apps for worker in broker.perform(workers_of(one_app))]
        found = found if name is None else named(found, name, broker.where)
        if name is None or as_json:
            listing = Listing(as_json, *_COLUMNS)
            for worker in found:
                listing.add(_row(worker, now), _document(worker, now))
            listing.end(broker.where, "worker")
            return
        listing = Listing(False, *_LANES)
        for worker in found:
            for lane in worker.lanes:
                listing.add(_lane_row(worker, lane, now), {})
        listing.end(broker.where, f"lane of worker {name}", f"lanes of worker {name}")


def _row(worker: Worker, now: float) -> tuple[Cell, ...]:
    report, ends = worker.report, worker.lease_ends
    pids = sorted({lane.info.pid for lane in worker.lanes})
    return (
        *(one_line(worker.name), worker.app, one_line(worker.host), str(report.pid) if report else "-"),
        one_line(report.state) if report else "-",
        len(report.children) if report else len(pids),
        sum(len(lane.held) for lane in worker.lanes),
        _mib(worker.memory),
        age(report.up) if report else "-",
        "-" if ends is None else _left(ends, now),
        one_line(report.version) if report and report.version else "-",
        one_line(", ".join(worker.queues)),
    )


def _lane_row(worker: Worker, lane: Lane, now: float) -> tuple[Cell, ...]:
    _, memory, up = _child(worker, lane.info.child)
    oldest = min((one.since for one in lane.held), default=None)
    return (
        *(str(lane.info.child), str(lane.info.pid), one_line(lane.info.lane) or "-", one_line(lane.incarnation)),
        *(_mib(memory), "-" if up is None else age(up), len(lane.held)),
        "-" if oldest is None else age(now - oldest),
        _left(lane.lease_ends, now),
        one_line(", ".join(map(str, lane.info.queues))),
    )


def _child(worker: Worker, number: int) -> tuple[int | None, int | None, int | None]:
    """Return pid, memory and seconds since the start of a child, as far as they were told."""
    for one, pid, memory, up in worker.report.children if worker.report else ():
        if one == number:
            return pid, memory or None, up
    return None, None, None


def _mib(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 2**20:,.0f}"


def _left(ends: float, now: float) -> str:
    return age(ends - now) if ends > now else f"-{age(now - ends)}"


def _document(worker: Worker, now: float) -> dict[str, Any]:
    report = worker.report
    numbers = sorted(
        {lane.info.child for lane in worker.lanes} | {child[0] for child in (report.children if report else ())}
    )
    return {
        "worker": worker.name,
        "app": worker.app,
        "host": worker.host,
        "pid": report.pid if report else None,
        "state": report.state if report else None,
        "version": report.version if report else None,
        "up": report.up if report else None,
        "memory": worker.memory,
        "lease_ends": None if worker.lease_ends is None else moment(worker.lease_ends),
        "queues": worker.queues,
        "children": [_child_document(worker, number, now) for number in numbers],
    }


def _child_document(worker: Worker, number: int, now: float) -> dict[str, Any]:
    pid, memory, up = _child(worker, number)
    lanes = [lane for lane in worker.lanes if lane.info.child == number]
    return {
        "child": number,
        "pid": lanes[0].info.pid if lanes else pid,
        "memory": memory,
        "up": up,
        "lanes": [
            {
                "lane": lane.info.lane,
                "incarnation": lane.incarnation,
                "lease_ends": moment(lane.lease_ends),
                "holds": len(lane.held),
                "oldest": seconds(max((now - one.since for one in lane.held), default=None)),
                "queues": [str(queue) for queue in lane.info.queues],
            }
            for lane in lanes
        ],
    }
