"""What a worker logs of tasks, and whose configuration of logging holds."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path

import pytest

from taskq import TaskFilter, TaskQ
from taskq.loading import set_up_logging
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from taskq.runs.delivery import Delivery, Route, Taken, current
from taskq.runs.execution import Executor
from taskq.runs.logs import ended, started, tell


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1", send_timeout=0.01)


@contextmanager
def new_process() -> Iterator[io.StringIO]:
    """Logging as in a process that has just begun, without what pytest adds; gives its standard error."""
    root, error = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        with redirect_stderr(error):
            yield error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, logger in root.manager.loggerDict.items():
            if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("taskq", "shop"):
                logger.handlers[:] = []
                logger.disabled = False
                logger.propagate = True
                logger.setLevel(logging.NOTSET)


@pytest.fixture
def fresh() -> Iterator[Callable[[], io.StringIO]]:
    """Enter `new_process` in the test itself, where pytest has added its handlers."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(new_process())


def delivery_of(app: TaskQ) -> Delivery:
    @app.task(name="shop.add")
    def add() -> None: ...

    delivery = Delivery(b"an-id", b"", Taken(0.0, time.monotonic()))
    delivery.route = Route(add, "shop.add", "worker-1", add.function)
    return delivery


OUTCOMES: list[tuple[Outcome, str]] = [
    ((b"an-id", b""), "done"),
    (Dead(b"an-id", "failed", b"", b""), "failed"),
    (Ended(b"an-id", "failed", b""), "failed"),
    (Ended(b"an-id", "done", b"Xrevoked"), "revoked"),
    (Again(b"an-id", b"", 1.0, "retried"), "retried"),
    (SlowDown(b"an-id", 1.0), "limited"),
    (Returned(b"an-id"), "returned"),
]


@pytest.mark.parametrize(("outcome", "word"), OUTCOMES, ids=lambda value: str(value)[:20])
def test_the_end_of_a_task_is_one_line_with_its_fields(
    app: TaskQ, outcome: Outcome, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = delivery_of(app)

    with caplog.at_level(logging.DEBUG, "taskq.task"):
        started(delivery)
        ended(delivery, outcome, 0.25)

    first, last = caplog.records
    assert (first.levelname, first.message) == ("DEBUG", "task shop.add[an-id] starts")
    assert (last.levelname, last.message) == ("INFO", f"task shop.add[an-id] {word} in 0.250 s")
    fields = {"outcome": word, "seconds": 0.25, "queue": "shop.add", "worker": "worker-1"}
    assert vars(last)["taskq"] == {"id": "an-id", "task": "shop.add", **fields}
    assert (vars(last)["task_id"], vars(last)["task_name"]) == ("an-id", "shop.add")


def test_a_failure_has_its_traceback_beside_the_text_from_the_tasks_own_frame_on(
    app: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("gone")

    fail.apply()

    (record,) = caplog.records
    assert "\n" not in record.message
    assert record.exc_info is not None
    kind, raised, frames = record.exc_info
    assert (kind, str(raised)) == (KeyError, "'gone'")
    assert frames is not None
    assert frames.tb_frame.f_code.co_name == "fail"
    assert vars(record)["taskq"]["retries"] == 0


def test_a_text_that_no_file_takes_is_logged_all_the_same(app: TaskQ, tmp_path: Path) -> None:
    @app.task
    def fail() -> None:
        raise ValueError("half of a pair: \ud800")

    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logging.getLogger("taskq.task").addHandler(handler)
    try:
        fail.apply()
    finally:
        logging.getLogger("taskq.task").removeHandler(handler)
        handler.close()

    assert r"half of a pair: \ud800" in (tmp_path / "log").read_text()


def test_what_never_ran_is_told_with_its_id_too(app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    Executor(app.tasks, app.settings, "w").prepare(Delivery(b"an-id", b"junk", Taken(0.0, 0.0)))

    assert vars(caplog.records[0])["taskq"] == {"id": "an-id", "task": "", "outcome": "undecodable"}


def test_a_broken_filter_of_the_users_does_a_task_no_harm(app: TaskQ, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError("my filter")

    delivery = delivery_of(app)
    logging.getLogger("taskq.task").addFilter(broken)
    try:
        tell(logging.ERROR, delivery, "something")
    finally:
        logging.getLogger("taskq.task").removeFilter(broken)

    assert "my filter" in capsys.readouterr().err


def logged_inside(delivery: Delivery | None, what: Callable[[], object]) -> None:
    token = current.set(delivery)
    try:
        what()
    finally:
        current.reset(token)


def test_the_filter_names_the_task_on_every_record_of_its_code(app: TaskQ) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(task_name)s|%(task_id)s|%(message)s"))
    handler.addFilter(TaskFilter())
    shop = logging.getLogger("shop.code")
    shop.addHandler(handler)
    try:
        logged_inside(delivery_of(app), lambda: shop.warning("inside"))
        logged_inside(None, lambda: shop.warning("outside"))
    finally:
        shop.removeHandler(handler)

    assert stream.getvalue() == "shop.add|an-id|inside\n||outside\n"


def test_unless_the_module_says_otherwise_the_log_is_on_standard_error_with_the_task(
    app: TaskQ, fresh: Callable[[], io.StringIO]
) -> None:
    error = fresh()
    set_up_logging()
    logged_inside(delivery_of(app), lambda: logging.getLogger("shop.code").warning("inside"))
    logging.getLogger("shop.code").info("too low")
    started(delivery_of(app))

    assert error.getvalue().splitlines()[0].endswith("WARNING MainProcess shop.code: shop.add[an-id] inside")
    assert len(error.getvalue().splitlines()) == 1


def test_a_level_that_is_given_holds(app: TaskQ, fresh: Callable[[], io.StringIO]) -> None:
    error = fresh()
    set_up_logging("info")
    ended(delivery_of(app), (b"an-id", b""), 0.1)

    assert "taskq.task: task shop.add[an-id] done in 0.100 s" in error.getvalue()


class Json(logging.Formatter):
    """As those of the packages that write JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record's extra fields too."""
        return json.dumps({"message": record.getMessage(), "taskq": getattr(record, "taskq", None)})


def test_the_modules_handlers_write_each_line_once_and_in_their_format(
    app: TaskQ, fresh: Callable[[], io.StringIO]
) -> None:
    error = fresh()
    own = io.StringIO()
    handler = logging.StreamHandler(own)
    handler.setFormatter(Json())
    logging.getLogger().addHandler(handler)
    set_up_logging("info")

    ended(delivery_of(app), (b"an-id", b""), 0.1)

    assert error.getvalue() == ""
    (line,) = map(json.loads, own.getvalue().splitlines())
    assert line["taskq"]["id"] == "an-id"


@pytest.mark.parametrize("name", ["shop", "taskq"])
def test_what_a_logger_of_the_modules_own_has_written_is_not_written_again(
    fresh: Callable[[], io.StringIO], name: str
) -> None:
    error = fresh()
    own = io.StringIO()
    logging.getLogger(name).addHandler(logging.StreamHandler(own))
    logging.getLogger("other.library").addHandler(logging.NullHandler())
    set_up_logging()

    logging.getLogger(f"{name}.code").warning("once")
    logging.getLogger("other.library").warning("seen")

    assert own.getvalue() == "once\n"
    assert "once" not in error.getvalue()
    assert "other.library: seen" in error.getvalue()


def test_basic_config_of_the_module_wins(app: TaskQ, fresh: Callable[[], io.StringIO]) -> None:
    error = fresh()
    logging.basicConfig(level="INFO", format="mine %(message)s", stream=error)
    set_up_logging()

    ended(delivery_of(app), (b"an-id", b""), 0.1)
    started(delivery_of(app))

    assert error.getvalue() == "mine task shop.add[an-id] done in 0.100 s\n"


def test_a_dict_config_that_does_not_name_taskq_does_not_silence_it(
    app: TaskQ, fresh: Callable[[], io.StringIO]
) -> None:
    error = fresh()
    logging.config.dictConfig(
        {
            "version": 1,
            "filters": {"task": {"()": "taskq.TaskFilter"}},
            "formatters": {"own": {"format": "%(levelname)s %(task_id)s %(message)s"}},
            "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["task"]}},
            "root": {"handlers": ["own"], "level": "WARNING"},
        }
    )
    set_up_logging()

    @app.task
    def fail() -> None:
        raise KeyError("gone")

    result = fail.apply()

    assert error.getvalue().startswith(f"ERROR {result.id} task ")
    assert "KeyError: 'gone'" in error.getvalue()
