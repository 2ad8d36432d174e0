"""The page about the architecture: what it names exists, and what it says to read is still an evening's reading."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
ORDER = PAGE.partition("\n## Reading order\n")[2].partition("\nThen, each by itself:\n")[0]


def named(text: str) -> list[str]:
    return re.findall(r"`(taskq/[\w/]+\.(?:py|lua))`", text)


def test_every_file_that_the_page_names_exists() -> None:
    assert [name for name in named(PAGE) if not (ROOT / name).is_file()] == []


def test_the_way_of_a_message_is_as_short_as_the_page_says() -> None:
    """If this fails, what everybody reads has grown, perhaps by something that belongs into a neighbour."""
    stated = re.search(r"(\d+) files, at most ([\d,]+) lines", ORDER)
    assert stated is not None
    files = named(ORDER)
    lines = sum(len((ROOT / name).read_text().splitlines()) for name in files)

    assert len(files) == len(set(files)) == int(stated[1])
    assert lines <= int(stated[2].replace(",", "")), f"{lines:,} lines"


def test_each_file_on_that_way_fits_the_guide() -> None:
    assert {name for name in named(ORDER) if len((ROOT / name).read_text().splitlines()) > 300} == set()
