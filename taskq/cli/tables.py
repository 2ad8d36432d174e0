"""How commands show what is stored: columns, ages, moments, and texts of others that must not steer the terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: Rows that are printed at once, so that columns need not wait for the last of a hundred thousand.
_PAGE = 100
#: How a zero is written, so that the numbers that matter stand out.
_ZERO = "·"
#: Characters that a text has at least; free text that would have less in the rest of the line has lines of its own.
_TEXT_MIN, _REST_MIN = 8, 30


class Age(click.ParamType[float]):
    """``90``, ``30m``, ``2h``, ``7d``: seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not an age: use seconds, or a number with s, m, h, d or w (2h)", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Above it.
        short: The title where the line is too short for all of it.
        number: Right-aligned, with quiet zeros; its cells are ints, or texts that begin with a number.
        alarm: The colour of a number that is not zero, on a terminal.
        whole: Its cells are never cut, since somebody will copy them.
        spare: Left out where the line is too short, if all its cells are equal.
        like: Left out so as well if each cell is that of the column of this title.
        extra: Left out, whatever it tells, if the line is too short all the same; the last one first.
    """

    title: str
    short: str = ""
    number: bool = False
    alarm: str = ""
    whole: bool = False
    spare: bool = False
    like: str = ""
    extra: bool = False


Cell = str | int


class Table:
    """Rows in columns that fit the line, printed some hundred at a time.

    The last column is free text: it takes the rest of the line, or lines of its own where the rest is too short.
    """

    def __init__(self, *columns: Column) -> None:
        """Begin with the columns, whose titles are printed before the first row."""
        self._columns = columns
        self._rows: list[Sequence[Cell]] = []
        self._shown: list[int] | None = None  # places of the columns that are shown, but for the last
        self._titles = [column.title for column in columns]
        self._widths = [0] * len(columns)
        known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
        self._line = shutil.get_terminal_size().columns if known else 200
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def add(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Take more rows."""
        self._rows += rows
        if len(self._rows) > _PAGE:
            self.flush()

    def flush(self) -> None:
        """Print what was not printed yet; nothing at all while there are no rows."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        texts = [[_text(cell) for cell in row] for row in rows]
        first = self._shown is None
        self._fit(texts)
        assert self._shown is not None
        used = sum(self._widths[at] + 2 for at in self._shown)
        longest = max(len(row[-1]) for row in [*texts, self._titles])
        below = self._line - used < min(longest, _REST_MIN)
        if first:
            titles = [self._cell(at, self._titles[at], None) for at in self._shown]
            click.echo("  ".join([*titles, "" if below else self._dim(self._titles[-1])]).rstrip())
        for row, text in zip(rows, texts, strict=True):
            cells = [self._cell(at, text[at], row[at]) for at in self._shown]
            cells += [] if below else [shortened(text[-1], max(self._line - used, _REST_MIN))]
            click.echo("  ".join(cells).rstrip())
            if below and text[-1]:
                for line in textwrap.wrap(text[-1], max(self._line - 4, _REST_MIN), max_lines=2, placeholder=" …"):
                    click.echo("    " + line)

    # -- what fits ----------------------------------------------------------------------------------------

    def _fit(self, texts: Sequence[Sequence[str]]) -> None:
        """Decide once which columns are shown under which titles, and each time how wide they are."""
        places = range(len(self._columns) - 1)
        for at in places:
            self._widths[at] = max(self._widths[at], len(self._titles[at]), *(len(row[at]) for row in texts))
        if self._shown is None:
            self._shown = list(places)
            if self._too_wide() > 0:
                self._shown = [at for at in places if not self._can_go(at, texts)]
            if self._too_wide() > 0:
                self._titles = [column.short or column.title for column in self._columns]
                for at in places:
                    self._widths[at] = max(len(row[at]) for row in [self._titles, *texts])
            for at in reversed([at for at in self._shown if self._columns[at].extra]):
                if self._too_wide() > 0:
                    self._shown.remove(at)
        while (over := self._too_wide()) > 0:
            cut = [at for at in self._shown if not (self._columns[at].number or self._columns[at].whole)]
            at = max(cut, key=self._widths.__getitem__, default=-1)
            if at < 0 or self._widths[at] <= _TEXT_MIN:
                break
            self._widths[at] = max(_TEXT_MIN, self._widths[at] - (1 if len(cut) > 1 else over))

    def _too_wide(self) -> int:
        assert self._shown is not None
        return sum(self._widths[at] + 2 for at in self._shown) - 2 - self._line

    def _can_go(self, at: int, texts: Sequence[Sequence[str]]) -> bool:
        column = self._columns[at]
        if column.like:
            other = [one.title for one in self._columns].index(column.like)
            if all(row[at] == row[other] for row in texts):
                return True
        return column.spare and len({row[at] for row in texts}) == 1

    # -- how it looks -------------------------------------------------------------------------------------

    def _cell(self, at: int, text: str, value: Cell | None) -> str:
        """Write a cell in its width; that of a title has no ``value``."""
        column, width = self._columns[at], self._widths[at]
        padded = text.rjust(width) if column.number else middle_cut(text, width).ljust(width)
        if value is None or text == _ZERO:
            return self._dim(padded)
        return click.style(padded, fg=column.alarm) if self._colour and column.alarm else padded

    def _dim(self, text: str) -> str:
        return click.style(text, dim=True) if self._colour else text


def _text(cell: Cell) -> str:
    if isinstance(cell, int):
        return f"{cell:,}" if cell else _ZERO
    return cell


def age(seconds: float) -> str:
    """Write an age in its largest unit: ``3m``."""
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def moment(seconds: float) -> str:
    """Write a time, given in seconds since the epoch."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a stamp that is none
        return f"{seconds!r} s since the epoch"


def one_line(text: str) -> str:
    """Put a text on one line."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Replace control characters: a message must not steer the terminal it is shown on."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def shortened(text: str, length: int) -> str:
    """Cut a text that is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def middle_cut(text: str, length: int) -> str:
    """Cut a name that is too long in its middle, for its end tells as much as its beginning."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end] + "…" + text[len(text) - end :]
