"""``taskq limit``: show the limits of a task, or set them by hand; needs no app's code."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from taskq.cli.common import app_at, dry_run_option, keys_of, name_option, reaching, url_option
from taskq.cli.tables import one_line
from taskq.config import check_name
from taskq.errors import ConfigError
from taskq.tasks.limits import Limit, rate_text

if TYPE_CHECKING:
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker

#: What ``limit.lua`` takes for "those of its code".
_CODE = "-"


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--rate", metavar="RATE", help="Starts in a time: 100/m, 5/10s.")
@click.option("--max-concurrency", type=click.IntRange(1), metavar="N", help="Runs at the same time.")
@click.option("--burst", type=click.IntRange(1), metavar="N", help="Starts at once after a pause.")
@click.option("--code", is_flag=True, help="Let those of its code hold again.")
@dry_run_option
@name_option
@url_option
def command(
    task: str,
    rate: str | None,
    max_concurrency: int | None,
    burst: int | None,
    code: bool,
    dry_run: bool,
    app: str | None,
    url: str | None,
) -> None:
    """Show the limits of a task, or set its first one by hand.

    What is set by hand holds at once, for all workers, and instead of what the code says, also after a restart, until
    --code. What is not given stays as it is; so do further limits, and whether each key is counted apart. Exit codes: 0
    done, 2 wrong usage or no server, or a task that no worker has had yet.
    """
    from taskq.broker import call
    from taskq.broker.commands import steering
    from taskq.spelling import guess

    changes = rate is not None or max_concurrency is not None or burst is not None
    if changes and code:
        raise click.UsageError("give either --code, or what is to hold instead")
    with reaching(url) as broker:
        keys = keys_of(app_at(broker, app))
        check_name("task", task)
        limits = _Limits.read(broker, keys, task)
        if limits is None:
            known = map(bytes.decode, broker.run(call.whole_hash(keys, "tasks")))
            raise ConfigError(f"app {keys.app} has no task {task}: no worker has had it yet{guess(task, known)}")
        hand = None if code else limits.changed(rate, max_concurrency, burst) if changes else limits.hand
        if not dry_run and (changes or code):
            broker.run(steering.limit(keys, task, _CODE if hand is None else hand))
            limits = _Limits.read(broker, keys, task) or limits
        would = "would be: " if dry_run and (changes or code) else ""
        click.echo(would + replace(limits, hand=hand).describe())


@dataclass(frozen=True)
class _Line:
    """One limit, or a breaker, as it is published."""

    kind: str
    interval: float
    burst: int
    slots: int

    @classmethod
    def read_all(cls, text: str) -> list[_Line]:
        found = re.findall(r"^(\w) (\S+) (\d+) (\d+)$", text, re.MULTILINE)
        return [cls(kind, float(interval), int(burst), int(slots)) for kind, interval, burst, slots in found]

    @property
    def is_breaker(self) -> bool:
        return self.kind in "bB"

    @property
    def text(self) -> str:
        interval = f"{self.interval:g}" if self.is_breaker else f"{self.interval:.6f}"
        return f"{self.kind} {interval} {self.burst} {self.slots}"

    def describe(self) -> str:
        if self.is_breaker:
            return f"breaker: {self.interval:.0%} of {self.burst} runs failed, pause {self.slots / 1000:g} s"
        words = []
        if self.interval:
            words.append(f"rate {rate_text(self.interval)}, burst {self.burst}")
        if self.slots:
            words.append(f"max_concurrency {self.slots}")
        return ", ".join([*words, *(["each key apart"] if self.kind == "k" else [])])


@dataclass(frozen=True)
class _Limits:
    """What holds of a task: what its code says, what was set by hand instead (None: nothing)."""

    task: str
    own: bool
    code: str
    hand: str | None

    @classmethod
    def read(cls, broker: Broker, keys: Keys, task: str) -> _Limits | None:
        """Read them; None if no worker has declared that task."""
        from taskq.broker import call

        queues = broker.run(call.whole_hash(keys, "tasks"))
        queue = queues.get(task.encode())
        if queue is None:
            return None
        fields = [task.encode(), b"!" + task.encode()]
        code, hand = broker.run(call.hash_values(keys, "limits", fields))
        own = queue == task.encode() and list(queues.values()).count(queue) == 1
        return cls(task, own, (code or b"").decode(), None if hand is None else hand.decode())

    def changed(self, rate: str | None, max_concurrency: int | None, burst: int | None) -> str:
        """Return what holds with its first limit changed; raises `ConfigError`."""
        lines = _Line.read_all(self.code if self.hand is None else self.hand)
        at = next((i for i, line in enumerate(lines) if not line.is_breaker), None)
        first = _Line("o" if self.own else "s", 0.0, 1, 0) if at is None else lines[at]
        if rate is not None:
            (asked,) = _Line.read_all(Limit(rate, burst=burst).text(first.kind))
            first = replace(first, interval=asked.interval, burst=asked.burst)
        elif burst is not None:
            if not first.interval:
                raise click.UsageError("--burst says how much of a rate may come at once; there is none")
            first = replace(first, burst=burst)
        if max_concurrency is not None:
            first = replace(first, slots=max_concurrency)
        others = lines if at is None else lines[:at] + lines[at + 1 :]
        return "\n".join(line.text for line in [first, *others])

    def describe(self) -> str:
        """Write what holds, and what its code says where that is something else."""
        if self.hand is None:
            return f"{self.task}, by its code: {self._list(self.code)}"
        return f"{self.task}, set by hand: {self._list(self.hand)}\nits code says: {self._list(self.code)}"

    @staticmethod
    def _list(text: str) -> str:
        return one_line("; ".join(line.describe() for line in _Line.read_all(text))) or "no limits"
