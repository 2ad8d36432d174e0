"""What an optional feature needs, and how to get it: the distribution is not on the package index yet."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra, for those who have a checkout and for those who have the wheel."""
    return f"pip install '.[{extra}]' in a checkout of taskq, or pip install 'WHEEL[{extra}]' with its wheel"
