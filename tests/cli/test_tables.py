"""Tables of the commands: they fit the line, and what matters stands out."""

from __future__ import annotations

import io
import re
import sys

import pytest

from taskq.cli import queues
from taskq.cli.tables import Cell, Column, Table
from taskq.cli.timetable import COLUMNS as ENTRIES


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def printed(
    monkeypatch: pytest.MonkeyPatch, columns: tuple[Column, ...], rows: list[tuple[Cell, ...]], width: int = 80
) -> str:
    """What a terminal of that width shows."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table(*columns)
    table.add(rows)
    table.flush()
    return screen.getvalue()


QUEUES = queues.columns(several=False)
PAUSED = "paused 3m ago by ann@host, for 57m more: the provider is down, and nobody knows for how long it will be"
BUSY: list[tuple[Cell, ...]] = [
    (
        "shop",
        "shop.mails.send_the_monthly_newsletter",
        2000000,
        1,
        20000,
        64,
        1,
        "16h",
        1393,
        12345678,
        1393,
        "250/s",
        12,
        0,
        PAUSED,
    ),
    ("shop", "shop.pay", 0, 0, 0, 0, 0, "-", 0, 7, 0, "0/s", 0, 0, ""),
    ("crm", "crm.sync", 12, 0, 0, 0, 0, "3m", 0, 7, 0, "0.5/s", 3, 0, ""),
]


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (QUEUES, BUSY),
        (QUEUES, BUSY[1:2]),
        (
            ENTRIES,
            [
                ("nightly.reports", "shop", "30 2 * * mon-fri", "Europe/Berlin", "shop.reports.send",
                 "in 7h", "16h ago", 31, "paused by ann@host at 2026-11-29T12:00:00.000+00:00: too loud"),
                ("hourly", "crm", "every 1h", "UTC", "crm.sync",
                 "in 12m", "47m ago", 744, "3 ms late, at most 17s"),
            ],
        ),
    ],
)  # fmt: skip
def test_no_line_is_longer_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: tuple[Column, ...], rows: list[tuple[Cell, ...]]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    lines = printed(monkeypatch, columns, rows, width).splitlines()

    assert max(map(len, lines)) <= width
    assert len(lines) >= 1 + len(rows)


def test_numbers_end_in_one_column_and_zeros_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    columns = (Column("QUEUE"), Column("PENDING", number=True), Column("DEAD", number=True), Column("STATE"))

    assert printed(monkeypatch, columns, [("mail", 12345, 0, "runs"), ("pay", 7, 1, "")]).splitlines() == [
        "QUEUE  PENDING  DEAD  STATE",
        "mail    12,345     ·  runs",
        "pay          7     1",
    ]


def test_columns_of_which_there_is_nothing_to_tell_go_where_the_line_is_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    wide, narrow = (printed(monkeypatch, QUEUES, BUSY[1:2], width).splitlines()[0] for width in (200, 80))

    assert wide.split() == [column.title for column in QUEUES]
    assert narrow.split() == ["QUEUE", "PENDING", "PROCESSING", "DEAD", "DONE", "FAILED", "STATE"]


def test_free_text_that_does_not_fit_has_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    lines = printed(monkeypatch, QUEUES, BUSY).splitlines()

    assert lines[2:4] == ["    paused 3m ago by ann@host, for 57m more: the provider is down, and nobody", lines[3]]
    assert lines[3].startswith("    knows for how long")


def test_an_id_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    columns = (Column("ID", whole=True), Column("TASK"), Column("ERROR"))
    text_id = "019ad4c7-1f6e-7000-8b3a-2f6d6c9c3f5e"

    line = printed(monkeypatch, columns, [(text_id, "shop.mails.send_the_monthly_newsletter", "x")], 60).splitlines()[1]

    assert line == f"{text_id}  shop.mails…y_newsletter"[:60] or line.startswith(f"{text_id}  shop.")
    assert len(line) <= 60


def test_colours_are_for_terminals_and_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    columns = (Column("QUEUE"), Column("DONE", number=True), Column("DEAD", number=True, alarm="red"), Column("STATE"))
    rows: list[tuple[Cell, ...]] = [("mail", 0, 1, ""), ("pay", 5, 0, "")]

    coloured = printed(monkeypatch, columns, rows).splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = printed(monkeypatch, columns, rows).splitlines()

    assert "\x1b[31m   1\x1b[0m" in coloured[1]
    assert "\x1b[31m" not in coloured[2]
    assert "\x1b[2m   ·\x1b[0m" in coloured[2]
    assert [re.sub(r"\x1b\[\d+m", "", line).rstrip() for line in coloured] == plain
    assert "\x1b" not in "".join(plain)
