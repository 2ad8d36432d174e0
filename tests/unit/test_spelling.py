"""Which known name somebody may have meant, and numbers of things."""

from __future__ import annotations

import pytest

from taskq.spelling import count, guess, is_typo

NAMES = ["fleet.sync_crm", "fleet.mail", "shop.charge"]


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("fleet.sync_cmr", NAMES, "; did you mean fleet.sync_crm"),
        ("Fleet.Mail", NAMES, "; did you mean fleet.mail"),
        ("x", NAMES, "; there are fleet.mail, fleet.sync_crm, shop.charge"),
        ("x", ["abc"], "; there is abc"),
        ("x", [], ""),
        ("x", [f"queue{n}" for n in range(1, 10)], "queue7, queue8 ..."),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_known_ones_or_with_all(
    name: str, known: list[str], text: str
) -> None:
    assert text in guess(name, known)


@pytest.mark.parametrize(
    ("name", "known", "slip"),
    [
        ("good.ad", ["good.add"], True),
        ("fleet.sync_cmr", NAMES, True),
        ("fleet.maill", NAMES, True),
        ("urgent", NAMES, False),
        ("mails-high", ["mails-low"], False),
        ("tenant-11", ["tenant-10"], False),
        ("default2", ["default"], False),
    ],
)
def test_a_slip_is_told_from_another_name(name: str, known: list[str], slip: bool) -> None:
    assert is_typo(name, known) is slip


def test_a_number_of_things_has_its_plural() -> None:
    assert [count(n, "message") for n in (0, 1, 1393)] == ["0 messages", "1 message", "1,393 messages"]
    assert count(2, "process", "processes") == "2 processes"
