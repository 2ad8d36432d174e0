"""The mail-out of ``taskq demo``: the example ``mailer`` against a mail server, with a worker process killed half-way.

Everything is real: the server, the worker and its two processes, SMTP over a socket, the SIGKILL. The mail server keeps
its own books of what it accepted, so the table at the end does not rest on what taskq says of itself.

Needs the extra ``demo`` (rich and aiosmtpd).
"""

from __future__ import annotations

import csv
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgpack
from aiosmtpd.controller import Controller
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from taskq import codec
from taskq.broker import commands
from taskq.broker.commands import QueueSurvey
from taskq.broker.keys import Keys
from taskq.broker.pool import Broker
from taskq.envelope import decode, id_to_text
from taskq.errors import TaskqError

#: The recipients' domains that the mail server treats in its own way, and for how many seconds it says "not now".
GREY, GONE, GREY_SECONDS = "@grey.example", "@gone.example", 1.5
PROCESSES = 2
#: Seconds without any progress after which the demo gives up.
_STALLED = 30.0


class DemoFailed(TaskqError):
    """The demo could not run to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A row of ``recipients.csv``."""

    name: str
    email: str
    plan: str


class MailServer:
    """A real SMTP server on loopback. It makes unknown senders wait as greylisting servers do, and knows no one "gone".

    Source: RFC 6647, "Email Greylisting"; the codes are those of RFC 5321.
    """

    def __init__(self) -> None:
        """Prepare the server; `start` lets it listen on a free port."""
        self.changed = threading.Event()
        self.accepted: Counter[str] = Counter()
        self.not_now = 0
        self._first_try: dict[str, float] = {}
        self._controller = _FreePort(self, hostname="127.0.0.1", port=0)

    def start(self) -> str:
        """Listen; returns host and port."""
        self._controller.start()
        return f"127.0.0.1:{self._controller.port}"

    def stop(self) -> None:
        """Stop listening."""
        self._controller.stop(no_assert=True)

    async def handle_RCPT(  # noqa: N802  the name aiosmtpd looks for
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Answer whether a recipient is taken."""
        if address.endswith(GONE):
            return "550 5.1.1 no such mailbox here"
        if address.endswith(GREY):
            now = time.monotonic()
            if now - self._first_try.setdefault(address, now) < GREY_SECONDS:
                self.not_now += 1
                return "451 4.7.1 greylisted, come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Accept a mail, and write it into the books."""
        self.accepted.update(envelope.rcpt_tos)
        self.changed.set()
        return "250 accepted"


class _FreePort(Controller):
    """aiosmtpd's server thread, on whichever port is free."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class Worker:
    """``taskq worker`` on the example, with its log in a file."""

    def __init__(self, folder: Path, log: Path) -> None:
        """Start it; it takes its settings from the environment."""
        self.log = log
        words = [sys.executable, "-m", "taskq", "worker", "-A", "tasks", "-c", str(PROCESSES)]
        with open(log, "wb") as out:
            self.process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def check(self) -> None:
        """Raise `DemoFailed` if it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise DemoFailed(f"the worker ended with exit code {self.process.returncode}; the end of its log:\n{tail}")

    def stop(self) -> None:
        """Stop it, gently at first."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _SendEmail(Protocol):
    """What the demo uses of the example's task."""

    queue: str

    def delay(self, to: str, name: str, plan: str) -> Any: ...


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
        self.recipients = read_recipients(mails)
        self.app = f"mailer-{secrets.token_hex(3)}"  # of its own: nothing of an earlier run is in the way
        self.broker = Broker(url, Keys(self.app), send_timeout=5.0)
        self.mail_server = MailServer()
        self._rate = 0.0

    def run(self) -> Books:
        """Send everything, and kill a worker process half-way.

        Raises:
            DemoFailed: The worker ended, or nothing moved any more.
            BrokerError: The server cannot be reached.
        """
        os.environ.update(
            TASKQ_URL=self.broker.url,
            MAILER_APP=self.app,
            MAILER_SMTP=self.mail_server.start(),
        )
        send_email: _SendEmail = load_tasks().send_email
        with tempfile.TemporaryDirectory(prefix="taskq-demo-") as folder:
            worker = Worker(example_folder(), Path(folder) / "worker.log")
            try:
                self._wait(lambda: len(self._children()) >= PROCESSES, worker)
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
            "worker": f"taskq worker -A tasks -c {PROCESSES}, in {example_folder()}",
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

    def _send(self, send_email: _SendEmail, worker: Worker) -> None:
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
                raise DemoFailed(f"nothing has moved for {_STALLED:g} s")

    def _children(self) -> dict[str, int]:
        """The incarnations of the worker's processes, with their pids."""
        infos = self.broker.run(commands.workers(self.broker.keys))
        return {incarnation.decode(): msgpack.unpackb(info)["pid"] for incarnation, info in infos.items()}

    def _kill_one(self, worker: Worker) -> int:
        """SIGKILL a process of the worker while it holds a mail; returns its pid."""
        while True:
            worker.check()
            for incarnation, pid in self._children().items():
                os.kill(pid, signal.SIGSTOP)  # so that what it holds now is what it holds when it dies
                if self.broker.run(commands.held_ids(self.broker.keys, incarnation)):
                    os.kill(pid, signal.SIGKILL)
                    return pid
                os.kill(pid, signal.SIGCONT)

    # -- the books ---------------------------------------------------------------------------------------

    def _survey(self, queue: str) -> QueueSurvey:
        return self.broker.run(commands.survey(self.broker.keys)).get(queue, QueueSurvey({}))

    def _close_books(self, queue: str) -> Books:
        ids = [raw_id for raw_id, _ in self.broker.run(commands.dead_ids(self.broker.keys, queue, 0, -1))]
        values = self.broker.run(commands.hash_values(self.broker.keys, "messages", ids)) if ids else []
        dead = {
            codec.unpack_call(decode(value).body)[0][0]: id_to_text(raw_id)
            for raw_id, value in zip(ids, values, strict=True)
            if value is not None
        }
        survey = self._survey(queue)
        self.broker.close()
        return Books(self.recipients, self.mail_server.accepted, survey, dead, self._rate)


def _runs(survey: QueueSurvey) -> int:
    """How often a task has run to an end so far."""
    return sum(survey.counters.get(name, 0) for name in ("done", "failed", "retried", "died"))


def _is_empty(survey: QueueSurvey) -> bool:
    return not (survey.pending or survey.suspects or survey.processing or survey.scheduled)


# -- the example -----------------------------------------------------------------------------------------


def example_folder() -> Path:
    """Return the folder of the example: in the installed package, or in the repository."""
    inside = Path(__file__).parent / "examples" / "mailer"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "examples" / "mailer"


def load_tasks() -> ModuleType:
    """Import the example's ``tasks.py`` under the name the worker knows it by."""
    spec = importlib.util.spec_from_file_location("tasks", example_folder() / "tasks.py")
    if spec is None or spec.loader is None:
        raise DemoFailed(f"there is no example in {example_folder()}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module
    spec.loader.exec_module(module)
    return module


def read_recipients(count: int) -> list[Recipient]:
    """Read ``count`` recipients; beyond the end of the file from its start again, as ``name+2@``, but for the gone."""
    with open(example_folder() / "recipients.csv", newline="", encoding="utf-8") as file:
        rows = [Recipient(row["name"], row["email"], row["plan"]) for row in csv.DictReader(file)]
    chosen = rows[:count]
    for number in range(2, count // len(rows) + 2):
        tagged = (
            Recipient(r.name, r.email.replace("@", f"+{number}@").replace(GONE, "@example.com"), r.plan) for r in rows
        )
        chosen += list(tagged)[: count - len(chosen)]
    return chosen


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
        console.print(f"  [bold]{' '.join([*look])} {raw_id}[/]", soft_wrap=True, highlight=False)
