"""``taskq pause``, ``resume``, ``revoke``, ``limit``, ``queues``, ``why``: no app's code in reach."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from taskq import Breaker, Limit, TaskQ, TaskRevoked
from taskq.broker import call
from taskq.broker.commands import announcing, steering
from taskq.cli import why
from taskq.worker.plan import publications
from tests.cli.conftest import Ran
from tests.cli.lost import bury, publish, take
from tests.support import Server, new_app, survey

Run = Callable[..., Ran]


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    """An app whose workers have been there: one task has its queue for itself, two share one."""
    made = new_app(session_server.url)

    @made.task(name="mail", rate="50/s", limits=[Limit(max_concurrency=2, key="to")], breaker=Breaker(of=4, pause=30))
    def mail(to: str = "ann") -> None: ...

    @made.task(name="bill", queue="office")
    def bill(n: int = 0) -> None: ...

    @made.task(name="plain", queue="office")
    def plain() -> None: ...

    publish(made)
    made.client.broker.run(announcing.publish_tasks(made.client.keys, publications(made.tasks)))
    yield made
    made.client.broker.close()


@pytest.fixture
def run(quick: Run, app: TaskQ) -> Run:
    """A command for that app; it must succeed unless told otherwise."""

    def call(*words: str, code: int = 0) -> Ran:
        ran = quick(*words, "--name", app.name)
        assert ran.returncode == code, f"{ran.stdout}{ran.stderr}"
        return ran

    return call


def limits(app: TaskQ, field: str) -> bytes | None:
    return app.client.broker.run(call.hash_values(app.client.keys, "limits", [field.encode()]))[0]


# -- pause and resume ------------------------------------------------------------------------------------


def test_a_queue_is_paused_with_a_reason_and_resumed(run: Run, app: TaskQ) -> None:
    assert run("pause", "mail", "--reason", "the provider\nis down", "--seconds", "2h").stdout == "paused mail\n"

    pause = survey_of_pause(app, "mail")
    assert pause.reason == "the provider\nis down"
    assert "@" in pause.author
    assert pause.until == pytest.approx(pause.since + 7200)
    assert "was paused before: the new reason and time hold" in run("pause", "mail").stdout
    assert survey_of_pause(app, "mail").until is None

    assert run("resume", "mail", "--dry-run").stdout == "would resume mail\n"
    assert run("resume", "mail").stdout == "resumed mail\n"
    assert run("resume", "mail", code=1).stderr == "taskq: mail was not paused\n"


def survey_of_pause(app: TaskQ, queue: str) -> steering.Pause:
    stored = app.client.broker.run(call.hash_values(app.client.keys, "paused", [queue.encode()]))[0]
    pause = steering.read_pause(stored or b"")
    assert pause is not None
    return pause


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("pause", "maill"), "has no queue or task maill yet, so nothing was paused (--new pauses it all the same)"),
        (("resume", "maill"), "has no queue or task 'maill'"),
        (("limit", "maill", "--rate", "1/s"), "has no task maill: no worker has had it yet"),
        (("revoke", "--task", "maill", "--yes"), "has no task 'maill'"),
        (("revoke", "--queue", "maill", "--yes"), "has no queue 'maill'"),
        (("revoke", "--queue", "maill", "--dry-run"), "has no queue 'maill'"),
        (("revoke", "--task", "mail", "--queue", "maill", "--yes"), "has no queue 'maill'"),
    ],
)
def test_a_name_that_nobody_has_used_is_told_with_the_nearest_ones(
    run: Run, app: TaskQ, words: tuple[str, ...], near: str
) -> None:
    ran = run(*words, code=2)

    assert ran.stdout == ""
    assert ran.stderr.startswith(f"taskq: app {app.name} {near}; did you mean mail")
    assert app.client.broker.run(call.whole_hash(app.client.keys, "paused")) == {}


@pytest.mark.parametrize(
    "words",
    [
        *(("queues",), ("pause", "mail"), ("resume", "mail"), ("limit", "mail"), ("why", "x"), ("revoke", "x")),
        *(("dead", "ls"), ("dead", "show", "x"), ("dead", "replay", "--all"), ("dead", "purge", "--all", "--yes")),
        *(
            ("reaper", "--once"),
            ("reaper", "--dry-run"),
            ("cron", "ls"),
            ("cron", "rm", "x"),
            ("cron", "pause", "x"),
            ("cron", "next", "x"),
        ),
    ],
)
def test_an_app_that_is_not_there_is_told_with_the_nearest_ones(quick: Run, app: TaskQ, words: tuple[str, ...]) -> None:
    ran = quick(*words, "--name", app.name.replace("test", "tset"))

    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"has no app {app.name.replace('test', 'tset')!r}; did you mean " in ran.stderr
    assert app.name in ran.stderr


def test_a_name_that_is_not_known_yet_is_paused_if_that_is_said(run: Run, app: TaskQ) -> None:
    assert run("pause", "maill", "--new").stdout == "paused maill\n"
    assert run("resume", "maill").stdout == "resumed maill\n"


def test_a_dry_run_of_a_pause_says_how_much_would_wait(run: Run, app: TaskQ) -> None:
    app.tasks["mail"].delay_many([("a",), ("b",), ("c",)])
    take(app, "mail", 1)

    assert run("pause", "mail", "--dry-run").stdout == "would pause mail: 2 messages waiting there, 1 running on\n"
    assert app.client.broker.run(call.whole_hash(app.client.keys, "paused")) == {}


def test_a_name_that_is_none_is_wrong_usage(run: Run) -> None:
    assert "is not a name" in run("pause", "a queue", "--new", code=2).stderr
    assert "is not a name" in run("resume", "a queue", code=2).stderr


def test_with_several_apps_one_must_be_named(quick: Run, app: TaskQ, session_server: Server) -> None:
    other = new_app(session_server.url)
    publish(other)
    other.client.broker.close()
    app.tasks["mail"].delay()

    for words in (("pause", "mail"), ("resume", "mail"), ("limit", "mail"), ("revoke", "--task", "mail")):
        ran = quick(*words)
        assert ran.returncode == 2
        assert "say which with --name" in ran.stderr


# -- queues ----------------------------------------------------------------------------------------------


def test_queues_is_a_table_with_what_holds_each_queue(run: Run, app: TaskQ) -> None:
    app.tasks["mail"].delay_many([("a",), ("b",), ("c",)])
    bury(app, "mail", 1)
    app.tasks["bill"].apply_async((1,), countdown=900)
    app.pause("mail", "the provider is down", seconds=600, author="ann@host")
    app.pause("plain", author="bob@host")
    app.pause("never", author="eve@host")
    keys = app.client.keys
    for task, breaker in ((b"mail", b"o 2000000000000 "), (b"bill", b"h 0 "), (b"plain", b"c 0 01")):
        app.client.broker.run(call.Command(None, [b"HSET", keys["breakers"], task, breaker], int))

    lines = run("queues").stdout.splitlines()

    titles = "APP QUEUE PENDING SCHEDULED GATED PROCESSING SUSPECTS OLDEST DEAD DONE FAILED RATE WORKERS MISSING STATE"
    assert " ".join(lines[0].split()) == titles
    cells = {line.split()[1]: re.split(r"\s{2,}", line, maxsplit=14)[2:] for line in lines[1:]}
    assert cells["mail"][:12] == ["2", "·", "·", "·", "·", "0s", "1", "·", "1", "-", "·", "·"]
    paused = r"paused \ds ago by ann@host, for (9|10)m more: the provider is down; breaker of mail open for \d+d more"
    assert re.fullmatch(paused, cells["mail"][12])
    assert cells["office"][:12] == ["·", "1", "·", "·", "·", "-", "·", "·", "·", "-", "·", "·"]
    assert re.fullmatch(r"task plain paused \ds ago by bob@host; breaker of bill tries one", cells["office"][12])
    assert cells["never"][:12] == [*["·"] * 5, "-", *["·"] * 3, "-", "·", "·"]
    assert len(lines) == 4


def test_queues_as_json(run: Run, app: TaskQ) -> None:
    app.tasks["mail"].delay_many([("a",), ("b",), ("c",)])
    bury(app, "mail", 1)

    row = json.loads(run("queues", "--json").stdout)
    assert 0 <= row.pop("oldest") < 60
    assert row == {
        "app": app.name, "queue": "mail", "partition": 0, "pending": 2, "scheduled": 0, "gated": 0, "processing": 0,
        "suspects": 0,
        "dead": 1, "accepted": 3, "done": 0, "failed": 1, "discarded": 0, "purged": 0, "rate": None, "rate_in": None,
        "served": True, "workers": [], "missing": 0, "paused": False, "state": "",
    }  # fmt: skip


def test_a_failure_is_counted_whatever_becomes_of_the_dead_letter(run: Run, app: TaskQ) -> None:
    app.tasks["mail"].delay_many([("a",), ("b",), ("c",)])
    bury(app, "mail", 3)

    run("dead", "replay", "--task", "mail")
    run("dead", "purge", "--all", "--yes")

    row = json.loads(run("queues", "--json").stdout)
    assert (row["dead"], row["pending"], row["failed"]) == (0, 3, 3)


def test_without_any_queue_nothing_is_shown(run: Run) -> None:
    ran = run("queues")

    assert ran.stdout == ""
    assert ran.stderr.startswith("no queues at ")


# -- revoke ----------------------------------------------------------------------------------------------


def test_messages_are_revoked_by_id(run: Run, app: TaskQ) -> None:
    dead = app.tasks["bill"].delay(0)
    bury(app, "office")
    running, waiting = app.tasks["plain"].delay(), app.tasks["mail"].delay("ann")
    take(app, "office", 1)

    ran = run("revoke", running.id, waiting.id, dead.id, "nothing", "--reason", "a mistake", code=1)

    assert ran.stdout.splitlines() == [f"{running.id} runs: its worker stops it", f"{waiting.id} revoked"]
    assert ran.stderr.splitlines() == [
        f"{dead.id} is a dead letter; to delete it: taskq dead purge {dead.id}",
        "nothing is not known: it has ended, or never was",
    ]
    with pytest.raises(TaskRevoked, match="a mistake"):
        waiting.get(timeout=5)


def test_messages_are_revoked_by_task_queue_and_header(run: Run, app: TaskQ) -> None:
    for number in range(3):
        app.tasks["bill"].apply_async((number,), headers={"tenant": number, "kind": "new"})
    app.tasks["plain"].delay()
    app.tasks["mail"].delay()

    def revoked(*words: str) -> str:
        return run("revoke", *words, "--yes").stdout

    assert revoked("--header", "tenant=1", "--header", "kind=new") == "revoked 1 message\n"
    assert revoked("--header", 'tenant="2"') == f"revoked 0 messages of app {app.name}\n"
    assert revoked("--queue", "office", "--task", "bill") == "revoked 2 messages\n"
    assert revoked("--queue", "office") == "revoked 1 message\n"
    assert {name: queue.pending for name, queue in survey(app).items()} == {"office": 0, "mail": 1}


def test_a_header_that_no_message_has_is_told_with_the_nearest_ones(run: Run, app: TaskQ) -> None:
    app.tasks["bill"].apply_async((1,), headers={"tenant": 7})

    refused = run("revoke", "--header", "tennant=7", "--yes", code=2)

    assert f"app {app.name} has no message with a header 'tennant'; did you mean tenant?" in refused.stderr
    assert run("revoke", "--header", "tenant=8", "--yes").stdout == f"revoked 0 messages of app {app.name}\n"


def test_before_many_are_revoked_it_says_how_many_and_asks(taskq: Run, app: TaskQ) -> None:
    app.tasks["bill"].delay_many([(number,) for number in range(300)])
    take(app, "office", 1)
    words = ("revoke", "--queue", "office", "--name", app.name)
    what = f"300 messages of app {app.name}, 1 of them running"

    assert taskq(*words, "--dry-run").stdout == f"would revoke {what}\n"
    refused, unanswered = taskq(*words, typed="n\n"), taskq(*words)
    assert f"Revoke {what}?" in refused.stderr
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--yes does it without a question" in unanswered.stderr
    assert (unanswered.returncode, unanswered.stdout) == (2, "")
    assert survey(app)["office"].pending == 299
    assert taskq(*words, typed="y\n").stdout == "revoked 300 messages\n"
    assert survey(app)["office"].pending == 0


def test_a_dry_run_with_ids_says_of_each_what_would_become_of_it(run: Run, app: TaskQ) -> None:
    dead = app.tasks["bill"].delay(0)
    bury(app, "office")
    running, waiting = app.tasks["plain"].delay(), app.tasks["mail"].delay("ann")
    take(app, "office", 1)

    ran = run("revoke", running.id, waiting.id, dead.id, "nothing", "--dry-run", code=1)

    assert ran.stdout.splitlines() == [f"{running.id} runs: its worker would stop it", f"{waiting.id} would be revoked"]
    assert ran.stderr.splitlines() == [
        f"{dead.id} is a dead letter; to delete it: taskq dead purge {dead.id}",
        "nothing is not known: it has ended, or never was",
    ]
    assert survey(app)["mail"].pending == 1


@pytest.mark.parametrize(
    "words", [(), ("id", "--task", "mail"), ("--header", "tenant"), ("not an id",), ("--task", "not a task")]
)
def test_what_names_nothing_or_too_much_is_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    run("revoke", *words, code=2)


# -- limit -----------------------------------------------------------------------------------------------

CODE = "rate 50/s, burst 5; max_concurrency 2, each key apart; breaker: 50% of 4 runs failed, pause 30 s"


def test_limits_are_shown_and_changed_and_those_of_the_code_come_back(run: Run, app: TaskQ) -> None:
    assert run("limit", "mail").stdout == f"mail, by its code: {CODE}\n"

    ran = run("limit", "mail", "--rate", "100/m", "--max-concurrency", "7")

    hand = CODE.replace("rate 50/s, burst 5", "rate 100/m, burst 1, max_concurrency 7")
    assert ran.stdout == f"mail, set by hand: {hand}\nits code says: {CODE}\n"
    assert limits(app, "!mail") == b"o 600.000000 1 7\nk 0.000000 1 2\nB 0.5 4 30000"
    assert limits(app, "mail") == b"o 20.000000 5 0\nk 0.000000 1 2\nB 0.5 4 30000"
    assert "rate 100/m, burst 9, max_concurrency 7" in run("limit", "mail", "--burst", "9").stdout
    assert run("limit", "mail", "--code").stdout == f"mail, by its code: {CODE}\n"
    assert limits(app, "!mail") is None


def test_a_task_without_limits_can_be_given_one(run: Run, app: TaskQ) -> None:
    assert run("limit", "bill").stdout == "bill, by its code: no limits\n"
    would = "would be: bill, set by hand: max_concurrency 3\nits code says: no limits\n"
    assert run("limit", "bill", "--max-concurrency", "3", "--dry-run").stdout == would
    assert limits(app, "!bill") is None

    run("limit", "bill", "--max-concurrency", "3")

    assert limits(app, "!bill") == b"s 0.000000 1 3"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("mail", "--rate", "fast"), 2, "rate 'fast' cannot be read"),
        (("mail", "--max-concurrency", "0"), 2, "0"),
        (("bill", "--burst", "2"), 2, "there is none"),
        (("mail", "--code", "--rate", "1/s"), 2, "give either"),
        (("nothing",), 2, "has no task nothing"),
    ],
)
def test_a_limit_that_cannot_work_is_told(run: Run, words: tuple[str, ...], code: int, error: str) -> None:
    assert error in run("limit", *words, code=code).stderr


# -- why -------------------------------------------------------------------------------------------------


def test_why_is_one_sentence_of_whichever_app_knows_the_message(run: Run, quick: Run, app: TaskQ) -> None:
    result = app.tasks["bill"].delay(1)
    expected = "No live worker serves queue office; start one: taskq worker -A ... -Q office.\n"

    assert run("why", result.id).stdout == expected
    assert quick("why", result.id).stdout == expected
    assert result.why() == expected.strip()
    assert run("why", "nothing", code=1).stdout.startswith("No message and no result of id nothing exists")
    assert "task_id 'not an id'" in run("why", "not an id", code=2).stderr


def test_why_measures_how_fast_the_queue_goes_on_if_it_is_asked_to(
    run: Run, app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = app.tasks["bill"].delay_many([(number,) for number in range(10)])[-1]
    looked: list[float] = []

    def meanwhile(seconds: float) -> None:
        looked.append(seconds)
        take(app, "office", 4)

    monkeypatch.setattr(why, "time", SimpleNamespace(sleep=meanwhile))

    said = run("why", last.id, "--measure", "1m").stdout

    assert looked == [60.0]
    assert re.search(
        r"number 6 of 6 in queue office\. In \d\.\d s 4 of those before it went; at that pace its turn", said
    )
