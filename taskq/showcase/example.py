"""The example ``mailer``: where it is, its task, and people to send mails to."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taskq.errors import TaskqError

#: The recipients' domains that the mail server treats in its own way.
GREY, GONE = "@grey.example", "@gone.example"


class ShowFailed(TaskqError):
    """A show could not run to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A row of ``recipients.csv``."""

    name: str
    email: str
    plan: str


class SendEmail(Protocol):
    """What is used of the example's task."""

    queue: str

    def delay(self, to: str, name: str, plan: str) -> Any:
        """Send a call."""

    def apply_async(self, args: Iterable[Any], *, queue: str | None = None, task_id: str | None = None) -> Any:
        """Send a call with options."""


def folder() -> Path:
    """Return the folder of the example: in the installed package, or in the repository."""
    inside = Path(__file__).parents[1] / "examples" / "mailer"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "examples" / "mailer"


def load_task() -> SendEmail:
    """Import the example's ``tasks.py`` under the name the worker knows it by; it reads the environment."""
    spec = importlib.util.spec_from_file_location("tasks", folder() / "tasks.py")
    if spec is None or spec.loader is None:
        raise ShowFailed(f"there is no example in {folder()}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module
    spec.loader.exec_module(module)
    task: SendEmail = module.send_email
    return task


def recipients() -> Iterator[Recipient]:
    """Yield recipients for ever; beyond the end of the file from its start again, as ``name+2@``, but for the gone."""
    with open(folder() / "recipients.csv", newline="", encoding="utf-8") as file:
        rows = [Recipient(row["name"], row["email"], row["plan"]) for row in csv.DictReader(file)]
    yield from rows
    for number in itertools.count(2):
        for r in rows:
            yield Recipient(r.name, r.email.replace("@", f"+{number}@").replace(GONE, "@example.com"), r.plan)
