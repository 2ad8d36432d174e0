"""The mail-out of ``taskq demo``: the example ``mailer``, with a worker process killed half-way."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from taskq.broker import call
from taskq.broker.commands import looking
from taskq.broker.commands.looking import QueueSurvey
from taskq.broker.pool import Broker
from taskq.broker.topology import topology
from taskq.message import codec
from taskq.message.envelope import decode
from taskq.message.ids import id_to_text
from taskq.showcase import example
from taskq.showcase.example import GONE, GREY, Recipient, SendEmail, ShowFailed
from taskq.showcase.mailserver import GREY_SECONDS, MailServer
from taskq.showcase.workers import PROCESSES, Worker, incarnations, stop_one_that_holds

#: Seconds without any progress after which the demo gives up.
_STALLED = 30.0


@dataclass
class Books:
    """What is known at the end.

    Attributes:
        recipients: Whom a mail was meant for.
        accepted: How many mails the mail server accepted, by recipient.
        queue: The ledger of the task's queue.
        dead: Recipients whose mail is a dead letter, and its id.
        rate: Tasks run a second, until the queue was empty.
    """

    recipients: list[Recipient]
    accepted: Counter[str]
    queue: QueueSurvey
    dead: dict[str, str]
    rate: float

    @property
    def lost(self) -> list[str]:
        """Recipients with neither a mail nor a dead letter."""
        return [r.email for r in self.recipients if r.email not in self.accepted and r.email not in self.dead]

    @property
    def twice(self) -> int:
        """Mails that were accepted although they had been accepted before."""
        return sum(self.accepted.values()) - len(self.accepted)

    def counter(self, name: str) -> int:
        """A counter of the queue."""
        return self.queue.counters.get(name, 0)


class MailOut:
    """One run of the demo."""

    def __init__(self, url: str, mails: int, console: Console) -> None:
        """Prepare to send ``mails`` mails by way of the server at ``url``."""
        self.console = console
        self.recipients = list(itertools.islice(example.recipients(), mails))
        self.app = f"mailer-{secrets.token_hex(3)}"  # of its own: nothing of an earlier run is in the way
        self.broker = Broker(url, topology(self.app), send_timeout=5.0)
        self.mail_server = MailServer()
        self._rate = 0.0

    def run(self) -> Books:
        """Send everything, and kill a worker process half-way.

        Raises:
            ShowFailed: The worker ended, or nothing moved any more.
            BrokerError: The server cannot be reached.
        """
        os.environ.update(
            TASKQ_URL=self.broker.url,
            TASKQ_PARTITIONS="1",
            MAILER_APP=self.app,
            MAILER_SMTP=self.mail_server.start(),
        )
        send_email: SendEmail = example.load_task()
        with tempfile.TemporaryDirectory(prefix="taskq-demo-") as folder:
            worker = Worker("demo", Path(folder))
            try:
                self._wait(lambda: len(incarnations(self.broker)) >= PROCESSES, worker)
                self._announce()
                self._send(send_email, worker)
            finally:
                worker.stop()
                self.mail_server.stop()
        return self._close_books(send_email.queue)

    def _announce(self) -> None:
        grey = sum(r.email.endswith(GREY) for r in self.recipients)
        rows = {
            "server": self.broker.where,
            "worker": f"taskq worker -A tasks -c {PROCESSES}, in {example.folder()}",
            "mail server": f"{os.environ['MAILER_SMTP']}, says 451 to {grey} recipients for {GREY_SECONDS:g} s, "
            f"550 to {self._gone} for ever",
        }
        for name, text in rows.items():
            self.console.print(f"[dim]{name:<12}[/] {text}", highlight=False, soft_wrap=True)
        self.console.print()

    @property
    def _gone(self) -> int:
        return sum(r.email.endswith(GONE) for r in self.recipients)

    # -- sending -----------------------------------------------------------------------------------------

    def _send(self, send_email: SendEmail, worker: Worker) -> None:
        total, queue = len(self.recipients), send_email.queue
        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "{task.fields[note]}"
        with Progress(*columns, console=self.console) as progress:
            called = progress.add_task("send_email.delay(...)", total=total, note="")
            arrived = progress.add_task("accepted by mail server", total=total - self._gone, note="")

            def show() -> None:
                progress.update(arrived, completed=len(self.mail_server.accepted))

            def survey() -> QueueSurvey:
                now = self._survey(queue)
                progress.update(arrived, note=f"{now.scheduled} to be retried" if now.scheduled else "")
                return now

            began = time.monotonic()
            for recipient in self.recipients:
                send_email.delay(recipient.email, recipient.name, recipient.plan)
                progress.advance(called)
                show()
            self._wait(lambda: len(self.mail_server.accepted) >= total // 2, worker, show)
            pid = self._kill_one(worker)
            progress.console.print(f"half-way: [bold red]SIGKILL[/] for worker process {pid}, in the middle of a mail")
            self._wait(lambda: not survey().pending, worker, show)
            self._rate = _runs(survey()) / (time.monotonic() - began)
            self._wait(lambda: _is_empty(survey()), worker, show)
            show()

    def _wait(self, condition: Callable[[], bool], worker: Worker, show: Callable[[], None] = lambda: None) -> None:
        """Wait for a condition; looked at when a mail has arrived, and every 50 ms."""
        seen, since = None, time.monotonic()
        while not condition():
            worker.check()
            self.mail_server.changed.wait(0.05)
            self.mail_server.changed.clear()
            show()
            now = len(self.mail_server.accepted), self.mail_server.not_now
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > _STALLED:
                raise ShowFailed(f"nothing has moved for {_STALLED:g} s")

    def _kill_one(self, worker: Worker) -> int:
        """SIGKILL a process of the worker while it holds a mail; returns its pid."""
        while (caught := stop_one_that_holds(self.broker, incarnations(self.broker))) is None:
            worker.check()
        os.kill(caught[0].pid, signal.SIGKILL)
        return caught[0].pid

    # -- the books ---------------------------------------------------------------------------------------

    def _survey(self, queue: str) -> QueueSurvey:
        return self.broker.run(looking.survey(self.broker.keys)).get(queue, QueueSurvey({}))

    def _close_books(self, queue: str) -> Books:
        ids = [raw_id for raw_id, _ in self.broker.run(looking.dead_ids(self.broker.keys, queue, 0, -1))]
        values = self.broker.run(call.hash_values(self.broker.keys, "messages", ids)) if ids else []
        dead = {
            codec.unpack_call(decode(value).body)[0][0]: id_to_text(raw_id)
            for raw_id, value in zip(ids, values, strict=True)
            if value is not None
        }
        survey = self._survey(queue)
        self.broker.close()
        return Books(self.recipients, self.mail_server.accepted, survey, dead, self._rate)


def _runs(survey: QueueSurvey) -> int:
    """How many times a task has run to its end so far."""
    return sum(survey.counters.get(name, 0) for name in ("done", "failed", "retried", "died"))


def _is_empty(survey: QueueSurvey) -> bool:
    return not (survey.pending or survey.suspects or survey.processing or survey.scheduled)


# -- what is shown ---------------------------------------------------------------------------------------


def show(books: Books, console: Console, look: Iterable[str]) -> None:
    """Print the table, and for each dead letter the command to look at it: ``look`` and its id."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bold")
    table.add_column()
    lost, twice = len(books.lost), books.twice
    rows = [
        (len(books.recipients), "recipients"),
        (len(books.accepted), "mails accepted by the mail server"),
        (books.counter("retried"), "retries, since the mail server said 451"),
        (
            books.counter("recovered"),
            "redelivered after the SIGKILL" + (f" ({twice} arrived twice, under one Message-ID)" if twice else ""),
        ),
        (len(books.dead), f"dead-lettered, since it said 550: {', '.join(books.dead) or 'none'}"),
        (lost, f"[bold {'red' if lost else 'green'}]lost[/]" + (f": {', '.join(books.lost[:5])}" if lost else "")),
        (round(books.rate), "tasks a second, until the queue was empty"),
    ]
    for number, text in rows:
        table.add_row(f"{number:,}", text)
    console.print()
    console.print(table, highlight=False)
    for raw_id in list(books.dead.values())[:3]:
        console.print("\nThe dead letter is kept, with its traceback:", highlight=False)
        command, line = " ".join(look), 3 + len(" ".join(look)) + len(raw_id)
        between = " " if line <= console.width else " \\\n    "  # a line that the terminal breaks is not easily copied
        console.print(f"  {command}{between}{raw_id}", style="bold", markup=False, soft_wrap=True, highlight=False)
