"""Words for people: which of the known names somebody may have meant, and numbers of things."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: How many known names are listed if none is similar.
_TOLD = 8


def nearest(name: str, known: Iterable[str], written: Callable[[str], str] = str) -> str:
    """Return ``; did you mean 'x'?`` for the known name that is most like ``name``; empty if none is similar."""
    from difflib import get_close_matches  # for those who mistype

    found = get_close_matches(name, list(known), 1)
    return f"; did you mean {written(found[0])!r}?" if found else ""


def guess(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the similar known names, else which there are."""
    from difflib import get_close_matches

    by_lower = {one.lower(): one for one in sorted(known)}
    if near := get_close_matches(name.lower(), by_lower, n=3):
        return f"; did you mean {' or '.join(by_lower[one] for one in near)}?"
    names = sorted(by_lower.values())
    if not names:
        return ""
    return f"; there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_TOLD])}{' ...' * (len(names) > _TOLD)}"


def is_typo(name: str, known: Iterable[str]) -> bool:
    """Whether a name is almost a known one, so probably a typo; names that differ only in digits are not."""
    from difflib import SequenceMatcher

    def letters(text: str) -> str:
        return "".join(c for c in text.lower() if not c.isdigit())

    return any(
        letters(one) != letters(name) and SequenceMatcher(None, name.lower(), one.lower()).ratio() > 0.85
        for one in known
    )


def count(number: int, one: str, many: str = "") -> str:
    """Write a number of things: ``1 message``, ``1,393 messages``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
