"""The mail-out of ``taskq chaos``: mails go out all the time while workers, connections and the server are broken."""

from __future__ import annotations

import itertools
import math
import os
import secrets
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from taskq.address import safe_url
from taskq.broker import call
from taskq.broker.call import Arg, Command
from taskq.broker.commands import looking
from taskq.broker.commands.looking import QueueSurvey
from taskq.broker.keys import APPS
from taskq.broker.net.embedded import EmbeddedServer
from taskq.broker.pool import Broker
from taskq.broker.topology import topology
from taskq.errors import BrokerRefused
from taskq.message.ids import id_to_text
from taskq.showcase import example
from taskq.showcase.breaking import Saboteur, start_server
from taskq.showcase.evidence import MAX_CRASHES, Books, Call, Fault, delays
from taskq.showcase.example import ShowFailed
from taskq.showcase.mailserver import MailServer
from taskq.showcase.producer import BUSINESS, Producer
from taskq.showcase.trouble import Step, make_plan
from taskq.showcase.workers import PROCESSES, Worker

#: Seconds of a lease: short, so that many a worker can be lost within a minute.
LEASE = 3.0
#: Seconds the mail server takes over a mail, so that most faults find one on its way.
_MAIL_SECONDS = 0.04
#: Seconds without any progress after which nothing more is expected.
_STALLED = 30.0


class Chaos:
    """One run.

    Attributes:
        kept: A folder with the workers' logs, and the server's data if it was ours; only if something was wrong.
        app: The name of the app, whose keys are left on the server in that case.
    """

    def __init__(self, url: str | None, seconds: float, seed: int, workers: int, console: Console) -> None:
        """Prepare to break ``workers`` workers for ``seconds`` seconds, and their server if ``url`` is None."""
        self.app = f"chaos-{secrets.token_hex(3)}"  # of its own: nothing else is in the way, nothing else is touched
        self.kept: Path | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="taskq-chaos-")).resolve()
        self._server = None if url else EmbeddedServer(self._folder)
        self._url = url or EmbeddedServer(self._folder).url
        self._seconds = seconds
        self._seed = seed
        self._console = console
        self._broker = Broker(_named(self._url, self.app), topology(self.app), send_timeout=5.0)
        self._mail_server = MailServer(_MAIL_SECONDS)
        names = map("chaos-{}".format, itertools.count(1))
        queues = f"tasks.send_email,{BUSINESS}"
        self._saboteur = Saboteur(
            self._broker,
            client=self.app,
            server=self._server,
            start=lambda: Worker(next(names), self._folder, "-Q", queues),
            workers=workers,
        )

    def run(self) -> Books:
        """Send mails and break things until the time is over, wait for what is on its way, and close the books.

        Raises:
            ShowFailed: A worker ended by itself, or none came to work.
            BrokerError: The server cannot be reached.
        """
        try:
            if self._server is not None:
                start_server(self._server, self._broker)
            os.environ.update(
                TASKQ_URL=self._broker.url,
                TASKQ_LEASE=str(LEASE),
                TASKQ_PARTITIONS="1",
                TASKQ_MAX_CRASHES=str(MAX_CRASHES),
                MAILER_APP=self.app,
                MAILER_SMTP=self._mail_server.start(),
            )
            books = self._run()
            if books.problems:
                self.kept = self._folder
            elif self._server is None:
                self._forget()
            return books
        finally:
            self._clean_up()

    def _run(self) -> Books:
        producer = Producer(example.load_task(), self._mail_server)
        plan = make_plan(self._seed, self._seconds, LEASE, self._saboteur.kinds)
        self._announce(len(plan))
        self._wait_for_workers()
        producer.start()
        with Progress(
            "{task.description}", BarColumn(), TextColumn("{task.fields[note]}"), console=self._console
        ) as bar:
            screen = Screen(bar, self._seconds, self._mail_server, self._saboteur.faults, producer.calls)
            self._break(plan, producer, screen)
            producer.stop()
            self._drain(screen)
        self._saboteur.stop()
        return self._close_books(producer.calls)

    def _announce(self, faults: int) -> None:
        rows = {
            "server": "an embedded one in a folder of its own" if self._server else safe_url(self._url),
            "workers": f"{self._saboteur.wanted} with {PROCESSES} processes each, and a lease of {LEASE:g} s",
            "mail server": f"{os.environ['MAILER_SMTP']}, takes {_MAIL_SECONDS * 1000:g} ms over a mail",
            "plan": f"{faults} faults in {self._seconds:g} s, from --seed {self._seed}",
        }
        for name, text in rows.items():
            self._console.print(f"[dim]{name:<12}[/] {text}", highlight=False, soft_wrap=True)
        self._console.print()

    def _wait_for_workers(self) -> None:
        began = time.monotonic()
        while len(self._saboteur.at_work()) < self._saboteur.wanted:
            self._saboteur.tend()
            if time.monotonic() - began > _STALLED:
                raise ShowFailed(f"the workers did not come to work within {_STALLED:g} s")
            time.sleep(0.02)

    def _break(self, plan: list[Step], producer: Producer, screen: Screen) -> None:
        """Carry out the plan, each fault as soon as it may be."""
        while screen.elapsed < self._seconds:
            self._saboteur.tend()
            if producer.error is not None:
                raise producer.error
            if plan and plan[0].at <= screen.elapsed:
                try:
                    fault = self._saboteur.carry_out(plan[0])
                except BrokerRefused as error:
                    screen.say(f"not possible here: {plan[0].kind.value}: {error}")
                    plan = [step for step in plan if step.kind is not plan[0].kind]
                else:
                    if fault is not None:
                        screen.say(f"[bold red]{fault.kind.value}[/]: {fault.what}")
                        del plan[0]
            screen.show()
            time.sleep(0.01)

    def _drain(self, screen: Screen) -> None:
        """Wait until everything has ended, or nothing moves any more."""
        screen.say("no more faults: what is on its way comes to its end")
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < _STALLED:
            self._saboteur.tend()
            screen.show()
            if self._saboteur.is_quiet and not any(map(not_ended, self._survey().values())):
                return
            if self._mail_server.book.entries != seen:
                seen, since = self._mail_server.book.entries, time.monotonic()
            time.sleep(0.05)

    # -- the end -----------------------------------------------------------------------------------------

    def _survey(self) -> dict[str, QueueSurvey]:
        return self._broker.run(looking.survey(self._broker.keys))

    def _close_books(self, calls: dict[str, Call]) -> Books:
        queues, dead = self._survey(), {}
        for queue in queues:
            ids = [raw_id for raw_id, _ in self._broker.run(looking.dead_ids(self._broker.keys, queue, 0, -1))]
            reasons = self._broker.run(call.hash_values(self._broker.keys, "reasons", ids)) if ids else []
            for raw_id, reason in zip(ids, reasons, strict=True):
                dead[id_to_text(raw_id)] = (reason or b"").partition(b"\n")[0].decode()
        return Books(calls, self._mail_server.book, self._saboteur.faults, dead, queues)

    def _forget(self) -> None:
        """Delete the app's keys from a server that is not ours."""
        cursor: bytes = b"0"
        while True:
            words: list[Arg] = [b"SCAN", cursor, b"MATCH", self._broker.keys.prefix + b"*", b"COUNT", 1000]
            cursor, keys = self._broker.run(Command(None, words, lambda reply: reply))
            if keys:
                self._broker.run(Command(None, [b"UNLINK", *keys], lambda reply: reply))
            if cursor == b"0":
                break
        self._broker.run(Command(None, [b"SREM", APPS, self.app], lambda reply: reply))

    def _clean_up(self) -> None:
        """Leave nothing running, whatever happened."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C would leave it half done
        self._saboteur.kill()
        with suppress(AttributeError):  # it was not started
            self._mail_server.stop()
        self._broker.close()
        if self._server is not None:
            self._server.leave()
        if self.kept is None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Screen:
    """The line that tells how far it is, and what is said above it."""

    def __init__(
        self, bar: Progress, seconds: float, mail_server: MailServer, faults: list[Fault], calls: dict[str, Call]
    ) -> None:
        """Begin to count the time."""
        self._bar = bar
        self._task = bar.add_task("", total=seconds, note="")
        self._mail_server = mail_server
        self._faults = faults
        self._calls = calls
        self._recovered: set[Fault] = set()
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Write a line above."""
        self._bar.console.print(f"{self.elapsed:5.1f} s  {text}", highlight=False, soft_wrap=True)

    def show(self) -> None:
        """Bring the line up to date."""
        for fault in self._faults:
            if fault not in self._recovered and self._is_over(fault):
                self._recovered.add(fault)
        note = (
            f"{len(self._mail_server.accepted):,} mails, {len(self._recovered)} of {len(self._faults)} faults recovered"
        )
        self._bar.update(self._task, description=f"{self.elapsed:5.1f} s", completed=self.elapsed, note=note)

    def _is_over(self, fault: Fault) -> bool:
        waits = delays(fault, self._mail_server.book, self._faults, self._calls)
        return fault.ended < math.inf and all(wait < math.inf for wait in waits)


def not_ended(queue: QueueSurvey) -> int:
    """Return how many messages of a queue are still to run, or running."""
    return queue.scheduled + queue.pending + queue.suspects + queue.processing


def _named(url: str, client: str) -> str:
    """Return the URL with a name for its connections, by which the server can tell them from those of others."""
    head, _, options = url.partition("?")
    return f"{head}?client_name={client}" + (f"&{options}" if options else "")
