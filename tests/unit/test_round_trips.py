"""What is accepted at the call can be read in the worker, exactly."""

from __future__ import annotations

import dataclasses
import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from taskq import ConfigError, SerializationError
from taskq.config import load_settings
from taskq.message.codec import pack, unpack
from tests.support import new_app

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    "moment",
    [
        dt.time(12, tzinfo=NEW_YORK),
        dt.datetime(2026, 11, 1, 1, 30, fold=1),
        dt.datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=NEW_YORK),
        dt.datetime(2026, 3, 8, 2, 30, tzinfo=NEW_YORK),
        dt.datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    ],
)
def test_times_keep_their_zone_and_fold(moment: dt.time | dt.datetime) -> None:
    read = unpack(pack(moment))

    assert read.isoformat() == moment.isoformat()
    assert (read.tzinfo, read.fold) == (moment.tzinfo, moment.fold)


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


@pytest.mark.parametrize("value", [{Point(1)}, frozenset([Point(1)]), {Point(1): 2}])
def test_what_would_not_come_back_is_refused_at_the_call(value: object) -> None:
    with pytest.raises(SerializationError, match="read back"):
        pack(value)


@pytest.mark.parametrize("options", ["?foo=1", "?protocol=9", "?ssl_ca_certs=x"])
def test_options_of_a_url_that_cannot_work_are_named_at_the_first_call(options: str) -> None:
    app = new_app(f"redis://localhost{options}")

    @app.task
    def nothing() -> None: ...

    with pytest.raises(ConfigError, match="options of the server URL"):
        nothing.delay()


def test_a_value_out_of_range_names_where_it_came_from() -> None:
    with pytest.raises(ConfigError, match=r"lease must be .* \(from TASKQ_LEASE\)"):
        load_settings({}, {"TASKQ_LEASE": "0"})
