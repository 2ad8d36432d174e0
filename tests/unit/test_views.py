"""Values that the server keeps opaque are read as they were written, and as nothing if they are spoilt."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import ConfigError
from taskq.tasks.limits import Breaker, Limit, Published, read_published
from taskq.views.audits import Audit
from taskq.views.workers import Report, Worker, WorkerInfo, named

KINDS = [WorkerInfo, Report, Audit]
INFO = WorkerInfo("w", "id", "h", 7, 1, "main", 1, ["q"], {"t": b"1234"}, {"t": ["a", ""]})
REPORT = Report("w", "h", 7, "1.0", "busy", 60, 1 << 20, [[0, 8, 1 << 20, 59]])
AUDIT = Audit(1.5, 0.1, "me@here", {"moved": 2}, 1.5, {"moved": 2})


@pytest.mark.parametrize("value", [INFO, REPORT, AUDIT], ids=lambda value: type(value).__name__)
def test_what_is_written_is_read(value: WorkerInfo | Report | Audit) -> None:
    assert type(value).read(value.stored()) == value


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=60) | st.recursive(
    st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=8), lambda inner: st.dictionaries(
        st.sampled_from(["worker", "name", "queues", "children", "tasks", "pid", "at", "x"]), inner | st.lists(inner))
).map(msgpack.packb))  # fmt: skip
def test_whatever_is_stored_can_be_read(kind: type[WorkerInfo], data: bytes) -> None:
    assert isinstance(kind.read(data), kind)


def test_what_a_newer_version_says_beside_it_is_passed_over() -> None:
    stored = msgpack.packb({"worker": "w", "pid": "not a number", "colour": "red"})

    assert WorkerInfo.read(stored) == WorkerInfo(worker="w")


@pytest.mark.parametrize(
    "line",
    [
        Limit("100/m").published("o"),
        Limit(max_concurrency=3, key="user").published("k"),
        Limit("5/10s", max_concurrency=2, burst=4).published("s"),
        Breaker(0.25, 8, 30.0).published("B"),
    ],
    ids=str,
)
def test_a_published_limit_is_read_as_it_was_written(line: Published) -> None:
    assert read_published(f"nonsense\n{line}\n") == [line]


def test_a_worker_is_known_by_its_name() -> None:
    workers = [Worker("a", name, Report(name=name)) for name in ("one", "two", "two")]
    find: Callable[[str], list[Worker]] = lambda name: named(workers, name, "here")  # noqa: E731

    assert len(find("two")) == 2
    with pytest.raises(ConfigError, match="here has no live worker 'ones'; did you mean one"):
        find("ones")
