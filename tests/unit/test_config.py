"""Settings: where they come from and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taskq import config
from taskq.config import Settings, check_name, load_settings, project_dir
from taskq.errors import ConfigError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """An empty project to be in; returns how to write its pyproject.toml."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "pyproject.toml"
        path.write_text(text)
        return path

    write("")
    return write


Write = Callable[[str], Path]


def test_without_any_source_there_are_the_defaults() -> None:
    assert load_settings({}, {}) == Settings()
    assert Settings().lease_ms == 15_000


def test_each_source_gives_way_to_the_one_before(project: Write) -> None:
    project("[tool.taskq]\nlease = 20\nresult_ttl = 21\nmax_crashes = 22\n")
    environ = {"TASKQ_RESULT_TTL": "31", "TASKQ_MAX_CRASHES": "32"}

    settings = load_settings({"max_crashes": 42, "lease": None}, environ)

    assert (settings.lease, settings.result_ttl, settings.max_crashes) == (20, 31, 42)
    assert settings.unknown_after == Settings().unknown_after


def test_the_project_is_the_nearest_folder_with_a_pyproject(
    tmp_path: Path, project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("[tool.taskq]\nlease = 20\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")

    assert project_dir() == str(tmp_path)
    assert load_settings({}, {}).lease == 20


def test_a_url_is_taken_as_it_is(project: Write) -> None:
    project('[tool.taskq]\nurl = "redis://one"\n')

    assert load_settings({}, {}).url == "redis://one"
    assert load_settings({}, {"TASKQ_URL": "redis://two"}).url == "redis://two"
    assert load_settings({"url": "redis://three"}, {"TASKQ_URL": "redis://two"}).url == "redis://three"
    assert load_settings({}, {"TASKQ_SERVER_CHECK": "refuse"}).server_check == "refuse"


def test_an_empty_variable_counts_as_absent() -> None:
    assert load_settings({}, {"TASKQ_LEASE": "", "TASKQ_URL": ""}) == Settings()


@pytest.mark.parametrize("raw", ["30", "30.5", "3e1"])
def test_a_variable_is_a_number(raw: str) -> None:
    assert load_settings({}, {"TASKQ_LEASE": raw}).lease == float(raw)


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match="TASKQ_LEASE='soon' is not a number"):
        load_settings({}, {"TASKQ_LEASE": "soon"})


def test_unknown_settings_are_named_with_their_source(project: Write) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting leese; known are .*lease"):
        load_settings({"leese": 1}, {})

    path = project("[tool.taskq]\nleese = 1\n")
    with pytest.raises(ConfigError, match="leese") as caught:
        load_settings({}, {})
    assert str(path) in str(caught.value)


def test_a_broken_pyproject_is_named(project: Write) -> None:
    path = project("[tool.taskq]\nlease = \n")

    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_settings({}, {})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[ tool.taskq ]\nlease = 30",
        '[tool."taskq"]\nlease = 30',
        "[tool]\ntaskq = {lease = 30}",
        "[tool]\ntaskq.lease = 30",
        "tool.taskq.lease = 30",
        "[project]\ndependencies = ['taskq-redis']\n[tool.taskq]\nlease = 30",
    ],
)
def test_settings_are_found_however_the_table_is_written(text: str, project: Write) -> None:
    project(text)

    assert load_settings({}, {}).lease == 30


def test_a_pyproject_that_does_not_speak_of_taskq_is_not_even_parsed(project: Write) -> None:
    project("this is = not [ toml, dependencies = ['taskq-redis[embedded]']")

    assert load_settings({}, {}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease", 0.5),
        ("lease", float("nan")),
        ("lease", float("inf")),
        ("lease", True),
        ("lease", "15"),
        ("result_ttl", 0),
        ("max_crashes", 0),
        ("max_crashes", 2.5),
        ("discard_after", -1),
        ("unknown_after", -1),
        ("dead_ttl", 0),
        ("dead_max", -1),
        ("dead_max", 1.5),
        ("max_message_bytes", 10),
        ("result_memory", -0.1),
        ("result_memory", 90),
        ("send_timeout", 0),
        ("url", 5),
        ("server_check", "panic"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"setting {name} must be .*not {value!r}"):
        load_settings({name: value}, {})


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Settings().lease = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "shop.tasks:send-1_x", "A" * 200])
def test_names_are_accepted(name: str) -> None:
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", ["", "a b", "ä", "a" * 201, "{a}", "a\n", "a,b", None, 5, b"a"])
def test_what_is_no_name_is_refused_with_its_kind(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^queue .* is not a name"):
        check_name("queue", name)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The warnings, as of a process that has given none yet."""
    monkeypatch.setattr(config, "_warned", set())
    return caplog


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("TASKQ_LEESE", "did you mean 'TASKQ_LEASE'?"),
        ("TASKQ_RESULTS_TTL", "did you mean 'TASKQ_RESULT_TTL'?"),
        ("TASKQ_SERVERCHECK", "did you mean 'TASKQ_SERVER_CHECK'?"),
        ("TASKQ_APPS", "did you mean 'TASKQ_APP'?"),
        ("TASKQ_VISIBILITY", "is ignored"),
    ],
)
def test_a_variable_that_is_no_setting_is_warned_of_once_with_the_nearest(
    variable: str, said: str, told: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        load_settings({}, {variable: "5"})

    (record,) = told.records
    assert variable in record.message
    assert said in record.message


def test_other_variables_of_taskq_and_those_of_a_service_of_that_name_are_not_warned_of(
    told: pytest.LogCaptureFixture,
) -> None:
    names = ["TASKQ_APP", "TASKQ_SERVER", "TASKQ_SERVICE_HOST", "TASKQ_SERVICE_PORT_HTTP"]
    names += ["TASKQ_PORT", "TASKQ_PORT_6379_TCP_ADDR", "TASKQ_REDIS_SERVICE_HOST", "TASKQ_REDIS_PORT_6379_TCP"]

    load_settings({}, dict.fromkeys(names, "5"))

    assert not told.records


@pytest.mark.parametrize(
    "text",
    [
        "[tool.taskq\nlease = 30",
        "[tool.taskq]\nlease 30",
        "tool.taskq]\nlease = 30",
        "[tool.'taskq]\nlease = 30",
        "[[tool.taskq]]\nlease = 30",
        "tool.taskq = 5",
        "[tool.taskq]\nlease = 30\n[tool.other\n",
    ],
)
def test_a_pyproject_that_speaks_of_taskq_and_is_malformed_is_named(text: str, project: Write) -> None:
    path = project(text)

    with pytest.raises(ConfigError) as caught:
        load_settings({}, {})
    assert str(path) in str(caught.value)


def test_one_that_is_not_utf8_or_cannot_be_read_is_named(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project("")
    path.write_text("[tool.taskq]\nlease = 30\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="not written in UTF-8"):
        load_settings({}, {})

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match="cannot be read: no"):
        load_settings({}, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[taskq]\nlease = 30", "[taskq] in"),
        ("[tool.tasqk]\nlease = 30", "[tool.tasqk] in"),
        ("[tool.TaskQ]\nlease = 30", "[tool.TaskQ] in"),
    ],
)
def test_a_table_of_nearly_that_name_is_warned_of(
    text: str, said: str, project: Write, told: pytest.LogCaptureFixture
) -> None:
    project(text)
    for _ in range(2):
        load_settings({}, {})

    (record,) = told.records
    assert record.message.startswith(said)
    assert "did you mean [tool.taskq]?" in record.message


def test_an_unknown_setting_is_answered_with_the_nearest(project: Write) -> None:
    project("[tool.taskq]\nresultttl = 1\n")
    with pytest.raises(ConfigError, match="did you mean 'result_ttl'"):
        load_settings({}, {})
