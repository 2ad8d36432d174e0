"""What commands show: tables for people, and for programs the JSON that ``docs/reference/json.md`` lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from taskq.cli.tables import Cell, Column, Table
from taskq.spelling import count

json_option = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object per line.")


def as_json_line(document: Mapping[str, Any]) -> str:
    """Write a JSON object on one line."""
    return json.dumps(document, ensure_ascii=False)


def seconds(number: float | None) -> float | None:
    """Return a duration as JSON has it: seconds, to the millisecond; None for none."""
    return None if number is None else round(max(0.0, number), 3)


class Listing:
    """Rows of one kind: a table, and on standard error how many there were; or one JSON object per line.

    Attributes:
        total: How many there were so far.
    """

    def __init__(self, as_json: bool, *columns: Column) -> None:
        """Begin with the columns of the table."""
        self.total = 0
        self._as_json = as_json
        self._table = Table(*columns)

    def add(self, row: Sequence[Cell], document: Mapping[str, Any]) -> None:
        """Take one more, as a row of the table and as JSON."""
        self.total += 1
        if self._as_json:
            click.echo(as_json_line(document))
        else:
            self._table.add([row])

    def end(self, where: str, one: str, many: str = "") -> None:
        """Say how many there were (``one`` such thing, ``many`` of them), and where."""
        if not self._as_json:
            self._table.flush()
            what = count(self.total, one, many) if self.total else f"no {many or one + 's'}"
            click.echo(f"{what} at {where}", err=True)
