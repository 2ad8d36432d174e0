"""``taskq demo`` with few mails: from nothing to the dead letter that can be looked at afterwards."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskq.broker.commands.looking import QueueSurvey
from taskq.showcase import demo, example
from tests.cli.conftest import Ran, environment

Run = Callable[..., Ran]


def figure(said: str, what: str) -> int:
    """The number in the line of the table that begins with ``what``."""
    (line,) = [line for line in said.splitlines() if line.strip().lstrip("0123456789, ").startswith(what)]
    return int(line.split()[0].replace(",", ""))


def test_the_demo_loses_nothing_and_its_last_command_works_afterwards(taskq: Run, short_folder: Path) -> None:
    folder = short_folder / "demo"
    folder.mkdir()
    (folder / "pyproject.toml").touch()

    ran = taskq("demo", "--mails", "30", url=None, folder=folder)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout
    assert "SIGKILL for worker process" in said
    assert figure(said, "recipients") == 30
    assert figure(said, "mails accepted by the mail server") == 29
    assert figure(said, "retries, since the mail server said 451") >= 2
    assert figure(said, "redelivered after the SIGKILL") >= 1
    assert figure(said, "dead-lettered, since it said 550: bjarne.silva@gone.example") == 1
    assert figure(said, "lost") == 0
    assert figure(said, "tasks a second") > 0

    assert max(map(len, said.splitlines()[-2:])) <= 80
    pasted = said.partition("with its traceback:\n")[2].strip()
    shown = subprocess.run(
        pasted, shell=True, cwd=folder, env=environment(None), capture_output=True, text=True, timeout=20
    )
    assert shown.returncode == 0, shown.stderr
    assert "550" in shown.stdout
    assert "Traceback (most recent call last):" in shown.stdout


@pytest.mark.parametrize("show", ["demo", "chaos"])
def test_without_its_extra_a_show_says_what_to_install(show: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskq.cli import common, main

    def without_rich(name: str) -> ModuleSpec | None:
        return None if name == "rich" else find_spec(name)

    monkeypatch.setattr(common, "find_spec", without_rich)

    ran = CliRunner().invoke(main, [show])

    assert ran.exit_code == 2
    assert f"taskq {show} needs rich: pip install '.[demo]' in a checkout of taskq, or " in ran.output


def test_more_mails_than_recipients_are_to_other_addresses_with_one_that_is_gone() -> None:
    recipients = list(itertools.islice(example.recipients(), 1000))

    assert len({r.email for r in recipients}) == 1000
    assert sum(r.email.endswith(example.GONE) for r in recipients) == 1


def test_a_recipient_with_neither_a_mail_nor_a_dead_letter_is_lost() -> None:
    recipients = [example.Recipient(name, f"{name}@example.com", "free") for name in ("a", "b", "c")]
    books = demo.Books(
        recipients, Counter({"a@example.com": 2}), QueueSurvey({}), dead={"b@example.com": "id"}, rate=1.0
    )

    assert books.lost == ["c@example.com"]
    assert books.twice == 1
