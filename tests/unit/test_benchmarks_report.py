"""What the benchmarks make of their samples."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.figures import FIGURES, TRICKLE_COLUMNS, Figure, peer_figures, trickle_figures

SERIES = {"ours": [2.0, 3.0, 40.0], "base": [1.0, 2.0, 10.0]}


def test_a_ratio_is_the_median_of_the_repeats_own_ratios() -> None:
    figure = Figure("x", "ours", "base", 2.0)

    assert figure.ratios(SERIES) == [2.0, 1.5, 4.0]
    assert figure.reached(SERIES)
    assert not Figure("x", "ours", "base", 1.9).reached(SERIES)
    assert Figure("x", "ours", "base", 1.9, at_least=True).reached(SERIES)
    assert Figure("x", "ours").reached(SERIES) is None


def test_the_table_says_what_was_missed_and_what_was_noisy() -> None:
    (row,) = report.rows([Figure("x", "ours", "base", 1.9), Figure("not measured", "none")], SERIES)

    assert row == ["x", "3.00 (2.00-40.0) µs", "2.00 (1.00-10.0) µs", "2.00", "≤ 1.90", "MISSED (noisy ±62%)"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0321, "0.0321"), (2, "2.00"), (29.97, "30.0"), (160_000.4, "160,000")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_no_figure_is_listed_twice() -> None:
    assert len({figure.what for figure in FIGURES}) == len(FIGURES)


def test_peers_are_compared_with_the_leanest_and_drawn() -> None:
    series = {
        f"peer.{name}.{column}": [value]
        for name, value in (
            ("taskq", 2.0),
            ("hand", 1.0),
            ("classic", 9.0),
            ("huey", 100.0),
            ("dramatiq", 110.0),
            ("celery", 800.0),
        )
        for column in ("worker", "producer")
    }

    whats = [figure.what for figure in peer_figures(series)]
    assert whats == ["worker CPU / dramatiq", "worker CPU / celery", "delay() / huey", "delay() / dramatiq"]
    drawing = ElementTree.fromstring(report.chart(series))
    assert next(t.text for t in drawing.iter() if t.get("text-anchor") == "end") == "hand loop"


TRICKLE = {
    f"trickle.{name}.{column}": values
    for name, server in (("taskq", [200.0, 220.0]), ("classic", [100.0, 100.0]), ("dramatiq", [150.0, 400.0]))
    for column, values in (("server", server), ("start", [0.25, 0.35]))
}


def test_a_trickle_is_compared_with_the_classic_list_and_those_peers_that_were_measured() -> None:
    figures = trickle_figures(TRICKLE)

    assert [figure.what.partition("CPU / ")[2] for figure in figures] == ["classic", "dramatiq"]
    assert [figure.ratios(TRICKLE) for figure in figures] == [[2.0, 2.2], [200 / 150, 220 / 400]]
    assert [figure.reached(TRICKLE) for figure in figures] == [True, False]
    assert trickle_figures({"trickle.classic.server": [1.0]}) == trickle_figures({}) == []


def test_a_trickle_has_a_row_a_peer_and_gaps_for_what_a_peer_has_not() -> None:
    table = report.peer_rows(TRICKLE, "trickle", TRICKLE_COLUMNS)

    assert [row[0] for row in table] == ["dramatiq", "taskq", "classic"]
    assert table[1] == ["taskq", "", "", "210", "0.30", ""]
    shown = report.text(TRICKLE, [], markdown=True)
    assert "|  | producer µs | worker µs | server µs | start p50 ms | round trip p50 ms |" in shown
    assert "| a call every 5 ms: server CPU / dramatiq | 210 (200-220) µs |" in shown
