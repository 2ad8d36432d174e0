"""Queues of tasks that name none, by patterns; and the app's time zone."""

from __future__ import annotations

from typing import Any

import pytest

from taskq import ConfigError, TaskQ, every

URL = "redis://127.0.0.1:1"


def test_the_first_pattern_that_fits_says_the_queue() -> None:
    app = TaskQ("unit", URL, routes={"shop.mails.*": "mails", "shop.?ay": "pay", "*": "rest"})

    for name, queue in {"shop.mails.send": "mails", "shop.pay": "pay", "shop.mails": "rest", "x": "rest"}.items():
        assert app.task(name=name)(lambda: None).queue == queue


def test_what_a_task_says_itself_counts_and_without_a_pattern_it_has_its_own() -> None:
    app = TaskQ("unit", URL, routes={"shop.*": "shop"})

    assert app.task(name="shop.a", queue="own")(lambda: None).queue == "own"
    assert app.task(name="a")(lambda: None).queue == "a"
    assert app.routes.unused(app.tasks) == []
    assert TaskQ("unit", URL, routes={"shop.*": "shop", "shpo.*": "x"}).routes.unused(["shop.a"]) == ["shpo.*"]


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        ([("a", "b")], "must map patterns"),
        ({"a": "no queue"}, "routes: 'a': queue 'no queue' is not a name"),
        ({"a": {"queue": "b"}}, "routes: 'a': queue"),
        ({5: "b"}, "5 is no pattern"),
    ],
)
def test_routes_that_cannot_be_are_refused(routes: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TaskQ("unit", URL, routes=routes)


def test_the_apps_time_zone_is_that_of_entries_that_name_none(monkeypatch: pytest.MonkeyPatch) -> None:
    app = TaskQ("unit", URL, timezone="Europe/Vienna")

    @app.task(name="t")
    def t() -> None: ...

    app.periodic("plain", "0 6 * * *", t)
    app.periodic("own", "0 6 * * *", t, tz="Asia/Tokyo")
    app.periodic("interval", every(5), t)
    zones = {name: getattr(entry.schedule, "zone", None) for name, entry in app.entries.items()}
    assert zones == {"plain": "Europe/Vienna", "own": "Asia/Tokyo", "interval": None}

    monkeypatch.setenv("TASKQ_TIMEZONE", "America/New_York")
    assert TaskQ("unit", URL).settings.timezone == "America/New_York"


@pytest.mark.parametrize("zone", ["Europe/Viena", "", "../etc/passwd", 5])
def test_an_unknown_time_zone_is_refused_with_the_nearest_one(zone: Any) -> None:
    with pytest.raises(ConfigError, match=r"setting timezone must be .* \(from an argument\)"):
        TaskQ("unit", URL, timezone=zone)
