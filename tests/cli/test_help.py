"""What the command says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from importlib_metadata import version

from tests.cli.conftest import Ran

Run = Callable[..., Ran]


def test_help_lists_every_command(taskq: Run) -> None:
    ran = taskq("--help")

    assert ran.returncode == 0
    for name in (
        *("worker", "reaper", "queues", "why", "pause", "resume", "revoke", "limit", "cron"),
        *("dead", "demo", "chaos"),
    ):
        assert f"\n  {name} " in ran.stdout


def test_version(taskq: Run) -> None:
    assert taskq("--version").stdout == f"taskq {version('taskq-redis')}\n"


@pytest.mark.parametrize(
    "words",
    [("worker",), ("reaper",), ("demo",), ("chaos",), ("dead",), ("dead", "ls"), ("dead", "replay"), ("dead", "purge")],
)
def test_every_command_has_help(taskq: Run, words: tuple[str, ...]) -> None:
    ran = taskq(*words, "--help")

    assert ran.returncode == 0
    assert "Usage: " in ran.stdout


def test_a_command_that_does_not_exist_is_wrong_usage(taskq: Run) -> None:
    ran = taskq("wroker")

    assert ran.returncode == 2
    assert "no such command 'wroker'; did you mean worker" in ran.stderr


def test_celerys_order_of_words_works_too(taskq: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from taskq import TaskQ\napp = TaskQ('celerys-order')\n@app.task\ndef f(): ...\n"
    )

    ran = taskq("-A", "shop", "worker", "-c", "1", "--drain")
    refused = taskq("-A", "shop", "queues")

    assert ran.returncode == 0, ran.stderr
    assert "  app          celerys-order" in ran.stderr
    assert refused.returncode == 2
    assert "taskq queues needs no code, so it takes no -A" in refused.stderr


@pytest.mark.parametrize(
    "words", [("queues",), ("dead", "ls"), ("why", "x"), ("pause", "x"), ("cron", "ls"), ("reaper",)]
)
def test_a_command_in_the_wrong_folder_starts_no_server_there(
    taskq: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = taskq(*words, url=None)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{tmp_path} has never had an embedded one. Go to the folder of your project" in ran.stderr
    assert list(tmp_path.iterdir()) == []
