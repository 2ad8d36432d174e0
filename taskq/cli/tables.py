"""How commands show what is stored: columns, ages, moments, and texts of others that must not steer the terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: Rows that are printed at once, so that columns need not wait for the last of a hundred thousand.
_PAGE = 100


class Age(click.ParamType[float]):
    """``90``, ``30m``, ``2h``, ``7d``: seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not an age: use seconds, or a number with s, m, h, d or w (2h)", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Table:
    """Rows in columns, printed some hundred at a time; columns only grow, the last takes the rest of the line."""

    def __init__(self, *titles: str) -> None:
        """Begin with the titles of the columns, which are printed before the first row."""
        self._titles: Sequence[str] = titles
        self._widths = [len(title) for title in titles]
        self._line = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
        self._rows: list[Sequence[str]] = [titles]

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Take more rows."""
        self._rows += rows
        if len(self._rows) > _PAGE:
            self.flush()

    def flush(self) -> None:
        """Print what was not printed yet; nothing at all while there are no rows."""
        if self._rows in ([], [self._titles]):
            return
        rows, self._rows = self._rows, []
        for row in rows:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        left = max(30, self._line - sum(self._widths[:-1]) - 2 * (len(self._titles) - 1))
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:-1], self._widths, strict=False)]
            click.echo("  ".join([*cells, shortened(row[-1], left)]).rstrip())


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
