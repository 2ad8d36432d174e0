"""``taskq cron``: periodic entries listed, added, changed and run, without an app's code but where it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskq import TaskQ, every
from taskq.broker import call
from taskq.broker.commands import announcing, ticking
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.cli import main
from taskq.message.codec import unpack_call
from taskq.message.envelope import decode
from taskq.periodic.entry import Entry
from taskq.upkeep.reaper import Reaper
from taskq.views.apps import apps_at
from taskq.views.timetable import entries_of
from tests.cli.conftest import Background, Ran
from tests.cli.lost import publish
from tests.support import Server, new_app, survey, wait_until

Run = Callable[..., Ran]


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    """An app whose workers have been there, with an entry that its code declares."""
    made = new_app(session_server.url)

    @made.periodic("hourly", every(3600), args=("mon",), overlap="skip")
    @made.task(name="report", queue="reports")
    def report(day: str, copies: int = 1) -> None: ...

    publish(made)
    stored = {name: entry.stored for name, entry in made.entries.items()}
    made.client.broker.run(ticking.declare(made.client.keys, "jobs", "1" * 16, stored, force=False))
    yield made
    made.close()


@pytest.fixture
def cron(app: TaskQ, session_server: Server) -> Run:
    """The command within this process, about the app."""

    def run(verb: str, *words: str, name: str = app.name) -> Ran:
        given = ("cron", verb, *words, *(("--name", name) if name else ()))
        ran = CliRunner(env={"TASKQ_URL": session_server.url, "COLUMNS": "200"}).invoke(main, given)
        return Ran(given, ran.exit_code, ran.stdout, ran.stderr)

    return run


def upkeep(app: TaskQ) -> None:
    """Do what workers do on the side, until nothing is due."""
    connection = Connection(app.client.url)
    reaper = Reaper(app.client.keys, "test", 15.0)
    while drive(reaper.promote(), connection) == 0.0:
        pass
    connection.close()


def listed(cron: Run) -> dict[str, dict[str, Any]]:
    ran = cron("ls", "--json")
    assert ran.returncode == 0, ran.stderr
    return {line["name"]: line for line in map(json.loads, ran.stdout.splitlines())}


def entry_of(app: TaskQ, name: str) -> Entry:
    return Entry.read(name, app.client.broker.run(call.whole_hash(app.client.keys, "periodic"))[name.encode()])


def test_entries_are_listed_with_what_became_of_them(app: TaskQ, cron: Run) -> None:
    upkeep(app)

    ran = cron("ls")
    title, row = ran.stdout.splitlines()
    assert title.split() == ["ENTRY", "APP", "SCHEDULE", "ZONE", "TASK", "NEXT", "LAST", "SENT", "STATE"]
    assert re.fullmatch(rf"hourly +{app.name} +every 1h +- +report +(in \d+[ms]|now) +- +·", row)
    assert "1 periodic entry at unix:" in ran.stderr
    found = listed(cron)["hourly"]
    assert found.items() >= {"app": app.name, "queue": "reports", "origin": "code", "sent": 0, "late_ms": None}.items()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:00:00\.000\+00:00", found["next"])


def test_an_entry_is_added_with_all_that_its_messages_need(app: TaskQ, cron: Run) -> None:
    ran = cron(
        "add", "nightly", "30 2 * * mon-fri", "report", "--args", '["tue"]', "--kwargs", '{"copies": 2}', "--tz",
        "Europe/Vienna", "--queue", "other", "--expires", "1h", "--catch-up", "all", "--window", "2d",
        "--overlap", "skip", "--jitter", "5m",
    )  # fmt: skip

    assert ran.stdout == f"defined nightly of {app.name}: 30 2 * * mon-fri, report\n", ran.stderr
    made = entry_of(app, "nightly")
    assert (made.task, made.queue, made.options) == ("report", "other", b"x3600000")
    assert unpack_call(made.body) == (["tue"], {"copies": 2})
    assert (made.catch_up, made.window, made.overlap, made.jitter) == ("all", 2 * 86_400_000, "skip", 300_000)
    assert listed(cron)["nightly"].items() >= {"zone": "Europe/Vienna", "origin": "command"}.items()


def test_an_entry_added_by_command_is_what_code_would_have_declared(
    app: TaskQ, cron: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With -A: the task's own queue and options, its arguments checked."""
    (tmp_path / "cronjobs.py").write_text(
        f"from taskq import TaskQ\napp = TaskQ({app.name!r}, {app.client.url!r})\n"
        "@app.task(name='report', queue='reports', at_most_once=True)\ndef report(day): ...\n"
        "app.periodic('declared', 'every 5s', report, ('mon',))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    added = cron("add", "e", "every 5s", "report", "--args", '["mon"]', "-A", "cronjobs")
    assert added.returncode == 0, added.stderr
    assert cron("sync", "-A", "cronjobs", "--dry-run", name="").stdout == "would be added: declared\n"
    assert "declared" not in listed(cron)
    assert cron("sync", "-A", "cronjobs", name="").stdout == "added declared\n"
    assert cron("sync", "-A", "cronjobs", "--dry-run", name="").stdout == ""

    assert entry_of(app, "e").stored == entry_of(app, "declared").stored
    for words, complaint in [
        (("report", "--args", "[]"), "missing 1 required positional argument"),
        (("other",), "has no task 'other'; there is report"),
    ]:
        ran = cron("add", "x", "@daily", *words, "-A", "cronjobs")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert complaint in ran.stderr


def test_an_entry_is_replaced_only_if_that_is_said(app: TaskQ, cron: Run) -> None:
    refused = cron("add", "hourly", "@daily", "report")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "say --replace" in refused.stderr

    assert cron("add", "hourly", "@daily", "report", "--replace").stdout.startswith("replaced hourly")
    assert str(entry_of(app, "hourly").schedule) == "0 0 * * *"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("e", "0 0 31 2 *", "t"), "never comes"),
        (("e", "every 0.1s", "t"), "from 1 to"),
        (("e", "@daily", "t", "--tz", "Mars/Base"), "unknown time zone"),
        (("two words", "@daily", "t"), "is not a name"),
        (("e", "@daily", "no task"), "is not a name"),
        (("e", "@daily", "t", "--queue", "no queue"), "is not a name"),
        (("e", "@daily", "t", "--args", "{}"), "is not a JSON list"),
        (("e", "@daily", "t", "--args", "[1"), "is not JSON"),
        (("e", "@daily", "t", "--kwargs", "[]"), "is not a JSON object"),
        (("e", "@daily", "t", "--window", "long"), "is not an age"),
        (("e", "every 5s", "t", "--jitter", "5s"), "shorter than its interval"),
        (("e", "@daily", "t", "--overlap", "maybe"), "is not one of"),
    ],
)
def test_what_cannot_work_is_not_added(app: TaskQ, cron: Run, words: tuple[str, ...], complaint: str) -> None:
    ran = cron("add", *words)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr
    assert set(listed(cron)) == {"hourly"}


def test_a_paused_entry_says_by_whom_and_why_and_goes_on_when_it_is_resumed(app: TaskQ, cron: Run) -> None:
    assert cron("pause", "hourly", "--reason", "too\x1b[31m loud").stdout == f"paused hourly of {app.name}\n"

    assert re.search(r"paused by \S+ at \S+: too\ufffd\[31m loud$", cron("ls").stdout, re.M)
    assert listed(cron)["hourly"]["next"] is None
    assert "it is paused by" in cron("next", "hourly").stderr
    assert cron("resume", "hourly").stdout == f"resumed hourly of {app.name}\n"
    assert cron("resume", "hourly").stdout == f"hourly of {app.name} was not paused\n"
    upkeep(app)
    assert listed(cron)["hourly"]["next"] is not None


def test_an_entry_is_removed(app: TaskQ, cron: Run) -> None:
    cron("add", "mine", "@daily", "report")

    assert cron("rm", "mine").stderr == ""
    assert "the next change of that code brings it back" in cron("rm", "hourly").stderr
    assert listed(cron) == {}
    assert "no periodic entries at" in cron("ls").stderr


def test_an_entry_is_run_now_beside_its_ticks(app: TaskQ, cron: Run) -> None:
    """Also while it is paused; it is what an entry that must not overlap waits for next time."""
    assert cron("resume", "hourly", "--dry-run").stdout == f"hourly of {app.name} was not paused\n"
    cron("pause", "hourly")
    assert cron("resume", "hourly", "--dry-run").stdout == f"would resume hourly of {app.name}\n"

    ran = cron("run-now", "hourly")

    text_id = ran.stdout.strip()
    assert re.fullmatch(r"cron:hourly:now:\d+", text_id), ran.stderr
    assert survey(app)["reports"].pending == 1
    value = app.client.broker.run(call.hash_values(app.client.keys, "messages", [text_id.encode()]))[0]
    assert unpack_call(decode(value or b"").body) == (["mon"], {})
    assert listed(cron)["hourly"].items() >= {"last_id": text_id, "sent": 1, "next": None}.items()


def test_the_next_ticks_are_shown_in_the_entrys_zone(app: TaskQ, cron: Run) -> None:
    cron("add", "e", "30 2 * * *", "report", "--tz", "Asia/Kathmandu")

    lines = cron("next", "e", "-n", "3").stdout.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT02:30:00\+05:45", line) for line in lines)
    assert lines == sorted(set(lines))


@pytest.mark.parametrize("verb", ["rm", "pause", "resume", "run-now", "next"])
def test_an_entry_that_is_not_there_is_told_with_the_nearest_ones(cron: Run, verb: str) -> None:
    ran = cron(verb, "hourli")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "has no periodic entry 'hourli'; did you mean hourly?" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("add", "e", "@daily", "report"),
        ("add", "hourly", "@daily", "report", "--replace"),
        ("rm", "hourly"),
        ("pause", "hourly"),
        ("run-now", "hourly"),
    ],
)
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(app: TaskQ, cron: Run, words: tuple[str, ...]) -> None:
    before = listed(cron)

    ran = cron(*words, "--dry-run")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("would ")
    assert app.name in ran.stdout
    assert listed(cron) == before
    assert "reports" not in survey(app)


def test_a_task_that_no_worker_has_had_is_told_with_the_nearest_ones(app: TaskQ, cron: Run) -> None:
    app.client.broker.run(announcing.publish_tasks(app.client.keys, [("report", "reports", "")]))

    refused = cron("add", "e", "@daily", "reprot")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "has had task reprot yet (--new adds the entry all the same); did you mean report?" in refused.stderr
    assert cron("add", "e", "@daily", "reprot", "--new").returncode == 0
    assert "has no app 'nobody'" in cron("add", "e", "@daily", "report", name="nobody").stderr


def test_a_schedule_that_cannot_be_read_says_of_which_entry_it_is(cron: Run) -> None:
    assert "periodic entry e: cron expression '99 * * * *'" in cron("add", "e", "99 * * * *", "report").stderr


def test_where_several_apps_have_an_entry_the_app_must_be_named(own_server: Server) -> None:
    runner = CliRunner(env={"TASKQ_URL": own_server.url})
    for name in ("one", "two"):
        assert runner.invoke(main, ["cron", "add", "e", "@daily", "t", "--name", name, "--new"]).exit_code == 0
        publish(TaskQ(name, own_server.url))

    assert "say --name APP" in runner.invoke(main, ["cron", "rm", "e"]).stderr
    assert (
        "several apps (one, two): say which with --name"
        in runner.invoke(main, ["cron", "add", "f", "@daily", "t"]).stderr
    )
    assert runner.invoke(main, ["cron", "rm", "e", "--name", "one"]).stdout == "removed e of one\n"
    assert runner.invoke(main, ["cron", "rm", "e"]).stdout == "removed e of two\n"


def test_an_entry_that_cannot_be_read_is_listed_and_can_be_removed(app: TaskQ, cron: Run) -> None:
    app.client.broker.run(ticking.change_entry(app.client.keys, "define", "odd", b"\xff\x00", 0))

    assert re.search(r"^odd +\S+ +\(cannot be read\)", cron("ls").stdout, re.M)
    for verb in ("next", "run-now"):
        ran = cron(verb, "odd")
        assert ran.returncode == 2
        assert "cannot be read here" in ran.stderr
    assert cron("rm", "odd").returncode == 0


def test_going_back_to_older_code_needs_a_word(app: TaskQ, cron: Run, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "backjobs.py").write_text(
        f"from taskq import TaskQ\napp = TaskQ({app.name!r}, {app.client.url!r})\n"
        "@app.periodic('old', '@daily')\n@app.task(name='t')\ndef t(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert cron("sync", "-A", "backjobs", name="").stdout == "added old\n"
    app.client.broker.run(ticking.declare(app.client.keys, "backjobs", "9" * 16, {}, force=False))
    assert set(listed(cron)) == {"hourly"}

    assert cron("sync", "-A", "backjobs", name="").stdout == "added old\n"
    assert set(listed(cron)) == {"hourly", "old"}


def test_a_reaper_sends_ticks_and_says_so(app: TaskQ, cron: Run, taskq: Run) -> None:
    upkeep(app)
    app.client.broker.run(call.Command(None, [b"ZADD", app.client.keys["ticks"], 1, b"hourly"], lambda r: r))

    assert "look at 1 periodic tick" in taskq("reaper", "--dry-run", "--name", app.name).stdout
    app.client.broker.run(
        call.Command(None, [b"HSET", app.client.keys["entry:hourly"], b"tick", 3_600_000], lambda r: r)
    )
    assert "sent 1 periodic tick" in taskq("reaper", "--once", "--name", app.name).stdout
    assert listed(cron)["hourly"].items() >= {"sent": 1, "left_out": 1}.items()


def test_a_reaper_keeps_the_time_of_entries(own_server: Server, background: Callable[..., Background]) -> None:
    reaper = background("reaper", url=own_server.url)
    words = ["cron", "add", "e", "every 1s", "t", "--name", "a", "--url", own_server.url]
    added = CliRunner().invoke(main, words)
    assert added.exit_code == 0, added.stderr

    app = TaskQ("a", own_server.url)
    wait_until(lambda: "t" in survey(app) and survey(app)["t"].pending >= 2, "two ticks are sent")
    assert reaper.end() == 0
    app.close()


def test_the_timetable_goes_over_every_app(own_server: Server) -> None:
    for name in ("b", "a"):
        app = TaskQ(name, own_server.url)
        publish(app)
        for entry in ("y", "x"):
            app.client.broker.run(ticking.change_entry(app.client.keys, "define", entry, b"x" * 20, 0))

    broker = TaskQ("any", own_server.url).client.broker
    found = [one for keys in broker.perform(apps_at("here", ())) for one in broker.perform(entries_of(keys))]
    assert [(one.app, one.name) for one in found] == [(a, e) for a in "ab" for e in "xy"]
