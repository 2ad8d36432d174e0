"""What ``taskq chaos`` shows at the end: what was broken, what that cost, that nothing was lost."""

from __future__ import annotations

import math
import statistics
from collections import Counter

from rich.console import Console
from rich.table import Table

from taskq.showcase.evidence import Books, delays
from taskq.showcase.trouble import Kind

#: Why a mail can be a dead letter, in words for people.
_REASONS = {"failed": "since the mail server said 550", "crashed": "since its process was killed three times"}


def show(books: Books, lease: float, console: Console) -> None:
    """Print the tables and the sum."""
    for heading, table in (
        ("What was broken, and what it cost", _faults(books, lease)),
        ("What taskq says: its ledger", _ledger(books)),
        ("What the mail server says: its own books", _sum(books)),
    ):
        console.print(f"\n[bold]{heading}[/]\n")
        console.print(table, highlight=False)


def _faults(books: Books, lease: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", caption_justify="left")
    table.caption = (
        "in hand: mails held by what was hit; of these were sent again, arrived twice\n"
        "*: until another process had the mail, or each process was at work again,\n"
        "   without the time that the server was away\n"
        "promised: for one fault at a time; here they meet"
    )
    table.add_column("")
    for heading in ("times", "in hand", "again", "twice", "median*", "longest*", "promised"):
        table.add_column(heading, justify="right")
    again = Counter(rerun.fault.kind for rerun in books.reruns if rerun.fault)
    twice = Counter(rerun.fault.kind for rerun in books.reruns if rerun.fault and rerun.twice)
    for kind in Kind:
        faults = [fault for fault in books.faults if fault.kind is kind]
        waits = [wait for fault in faults for wait in delays(fault, books.book, books.faults, books.calls)]
        waits = [wait for wait in waits if wait < math.inf]
        if faults:
            held, promised = sum(len(fault.held) for fault in faults), kind.promised(lease)
            cells = [f"{wait:.2f} s" for wait in (statistics.median(waits), max(waits))] if waits else ["", ""]
            numbers = [len(faults), held, again[kind], twice[kind]]
            table.add_row(kind.value, *map(str, numbers), *cells, f"{promised:g} s")
    return table


def ledger(books: Books) -> dict[str, list[int]]:
    """Return taskq's ledger: for each place a number a queue; what was accepted is the sum of all others."""
    queues = [books.queues[name] for name in sorted(books.queues)]
    rows = {name: [queue.counters.get(name, 0) for queue in queues] for name in ("accepted", "done", "failed")}
    rows |= {name: [queue.counters.get(name, 0) for queue in queues] for name in ("discarded", "purged", "dangling")}
    rows["scheduled"] = [queue.scheduled for queue in queues]
    rows["gated"] = [queue.gated for queue in queues]
    rows["pending"] = [queue.pending + queue.suspects for queue in queues]
    rows["processing"] = [queue.processing for queue in queues]
    rows["dead"] = [queue.dead for queue in queues]
    rows["off by"] = [queue.balance for queue in queues]
    return rows


def _ledger(books: Books) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for queue in sorted(books.queues):
        table.add_column(queue, justify="right")
    for place, (name, numbers) in enumerate(ledger(books).items()):
        sign = " =+"[min(place, 2)]
        table.add_row(f"{sign} {name}", *(f"{number:,}" for number in numbers))
    return table


def _sum(books: Books) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bold")
    table.add_column()
    lost, unexplained, twice = len(books.lost), len(books.unexplained), sum(rerun.twice for rerun in books.reruns)
    dead = Counter(books.dead.values())
    why = ", ".join(f"{n} {_REASONS.get(reason, reason)}" for reason, n in sorted(dead.items()))
    rows = [
        (f"{len(books.calls):,}", "calls accepted by taskq"),
        (f"{len(books.arrived):,}", "of these mails arrived"),
        (f"{len(books.dead):,}", f"dead-lettered{f': {why}' if why else ''}"),
        (f"{lost:,}", _judged("lost", lost)),
        (f"{len(books.reruns):,}", f"sent again; {twice:,} of them arrived twice, under one Message-ID"),
        (f"{unexplained:,}", _judged("sent again although no fault had hit their process", unexplained)),
        (f"{books.longest_wait:.1f} s", "the longest a mail was on its way (but for the greylisted)"),
    ]
    for number, text in rows:
        table.add_row(number, text)
    return table


def _judged(text: str, bad: int) -> str:
    return f"[bold {'red' if bad else 'green'}]{text}[/]"
