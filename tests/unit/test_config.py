"""Settings: where they come from and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
