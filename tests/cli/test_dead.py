"""``taskq dead``: what is listed, shown, replayed and purged, with no app's code in reach."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskq import ResultTimeout, TaskError, TaskQ
from taskq.broker import call
from taskq.broker.commands import looking
from taskq.broker.pool import Broker
from taskq.message.envelope import decode
from taskq.message.head import encode_head
from taskq.message.ids import id_from_text
from taskq.steering.letters import replay
from taskq.views.letters import Filters, Graveyard
from tests.cli.conftest import Ran, environment
from tests.cli.lost import bury, publish
from tests.support import Server, new_app, survey

Run = Callable[..., Ran]


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    """An app with two tasks, each with its queue, whose workers have been there."""
    made = new_app(session_server.url)

    @made.task(name="mail", queue="mail")
    def mail(to: str, copies: int = 1) -> None: ...

    @made.task(name="bill", queue="bill")
    def bill(n: int) -> None: ...

    publish(made)
    yield made
    made.client.broker.close()


def dead(app: TaskQ, task: str, n: int = 1, **more: Any) -> list[str]:
    """Make dead letters of calls of a task."""
    app.tasks[task].delay_many([(str(i),) if task == "mail" else (i,) for i in range(n)])
    return bury(app, task, n, **more)


def stored(app: TaskQ, text_id: str) -> bytes | None:
    return app.client.broker.run(call.hash_values(app.client.keys, "messages", [id_from_text(text_id)]))[0]


def store(app: TaskQ, text_id: str, value: bytes) -> None:
    """Put another value in the place of a message."""
    words = [b"HSET", app.client.keys["messages"], id_from_text(text_id), value]
    app.client.broker.run(call.Command(None, words, int))


def listed(ran: Ran) -> list[str]:
    """The ids that ``dead ls --json`` printed."""
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line)["id"] for line in ran.stdout.splitlines()]


# -- ls --------------------------------------------------------------------------------------------------


def test_ls_is_an_aligned_table(taskq: Run, app: TaskQ) -> None:
    (bill,) = dead(app, "bill", reason="crashed", error="")
    (mail,) = dead(app, "mail", error="the text\nhas two lines and is \x1b[31mred")

    ran = taskq("dead", "ls", "--name", app.name)

    wide = len(app.name)
    assert re.sub(r"  \d+s  ", "  0s  ", ran.stdout).splitlines() == [
        f"{'ID':36}  {'APP':{wide}}  QUEUE  TASK  REASON   AGE  ERROR",
        f"{bill}  {app.name}  bill   bill  crashed   0s  ValueError:",
        f"{mail}  {app.name}  mail   mail  failed    0s  ValueError: the text has two lines and is �[31mred",
    ]
    assert ran.stderr.startswith("2 dead letters at unix://")


def test_ls_of_nothing_says_where_there_is_nothing(taskq: Run, app: TaskQ, session_server: Server) -> None:
    ran = taskq("dead", "ls", "--name", app.name)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", f"no dead letters at {session_server.url}\n")


def test_ls_as_json(taskq: Run, app: TaskQ) -> None:
    (text_id,) = dead(app, "mail", error="no\nway")

    row = json.loads(taskq("dead", "ls", "--json", "--name", app.name).stdout)

    assert row.pop("died_at").startswith("20")
    assert 0 <= row.pop("age") < 20
    assert row == {
        "id": text_id, "app": app.name, "queue": "mail", "task": "mail", "reason": "failed", "error": "ValueError",
        "message": "no\nway",
    }  # fmt: skip


def test_filters(quick: Run, app: TaskQ) -> None:
    mails, bills = dead(app, "mail", 2), dead(app, "bill", 2, reason="crashed", number=2)
    (old,) = dead(app, "bill", reason="discarded: older than discard_after", number=3)
    words = [b"ZINCRBY", app.client.keys["dead:bill"], -7_200_000, id_from_text(old)]
    app.client.broker.run(call.Command(None, words, float))

    def ls(*options: str) -> list[str]:
        return listed(quick("dead", "ls", "--json", "--name", app.name, *options))

    assert ls("--queue", "mail") == ls("--task", "mail") == mails
    assert ls("--reason", "crashed") == bills
    assert ls("--reason", "discarded") == ls("--older-than", "1h") == ls("--older-than", "60m") == [old]
    assert ls("--older-than", "7200") == [old]
    assert ls("--older-than", "3h") == ls("--reason", "abandoned") == []
    assert ls("--queue", "bill", "--reason", "failed") == []


@pytest.mark.parametrize("verb", ["ls", "replay", "purge"])
@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--task", "mial", "has no task 'mial'; did you mean mail?"),
        ("--queue", "mial", "has no queue 'mial'; did you mean mail?"),
        ("--reason", "fialed", "has no reason 'fialed'; did you mean failed?"),
    ],
)
def test_a_filter_by_what_nobody_has_used_is_told_with_the_nearest_names(
    quick: Run, app: TaskQ, verb: str, option: str, name: str, told: str
) -> None:
    dead(app, "mail")

    ran = quick("dead", verb, option, name, "--name", app.name)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr


def test_ls_goes_over_every_app(taskq: Run, app: TaskQ, session_server: Server) -> None:
    other = new_app(session_server.url)
    other.task(name="mail", queue="mail")(lambda n: None)
    publish(other)

    ids = dead(app, "mail") + dead(other, "mail")

    assert set(ids) <= set(listed(taskq("dead", "ls", "--json")))
    other.client.broker.close()


def test_an_age_that_is_none_is_wrong_usage(taskq: Run) -> None:
    ran = taskq("dead", "ls", "--older-than", "soon")

    assert ran.returncode == 2
    assert "'soon' is not an age" in ran.stderr


# -- show ------------------------------------------------------------------------------------------------


def test_show_tells_everything(taskq: Run, app: TaskQ) -> None:
    app.tasks["mail"].apply_async(("ada@example.com",), {"copies": 2}, headers={"trace": "t1"}, max_retries=4)
    (text_id,) = bury(app, "mail", traceback="Traceback ...\n  File \x07\nValueError: no")

    ran = taskq("dead", "show", text_id)

    assert ran.returncode == 0
    facts, _, traceback = ran.stdout.partition("\n\n")
    said = {line[:10].strip(): line[10:] for line in facts.splitlines()}
    assert said.pop("died").endswith("ago")
    assert said.pop("accepted").startswith("20")
    assert said == {
        "id": text_id, "app": app.name, "queue": "mail", "task": "mail", "reason": "failed", "retries": "0",
        "headers": "{'trace': 't1'}", "retry": "{'max_retries': 4}", "args": "('ada@example.com',)",
        "kwargs": "{'copies': 2}", "worker": "w", "error": "ValueError: no",
    }  # fmt: skip
    assert traceback == "Traceback ...\n  File �\nValueError: no\n"


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x01\x00 no head", b"\xff" * 3000, None])
def test_show_and_purge_of_what_cannot_be_decoded(quick: Run, app: TaskQ, value: bytes | None) -> None:
    (text_id,) = dead(app, "mail")
    store(app, text_id, encode_head("mail", "mail")[:2] + b"\0" * 8 + b"\x04mail\x04mail" if value is None else value)

    shown = quick("dead", "show", text_id)

    assert shown.returncode == 0, shown.stderr
    assert "(cannot be decoded)" in shown.stdout
    assert "error     ValueError: no" in shown.stdout
    assert listed(quick("dead", "ls", "--json", "--name", app.name)) == [text_id]
    assert quick("dead", "purge", text_id, "--yes").stdout == "purged 1 dead letter\n"
    assert survey(app)["mail"].balance == 0


def test_show_of_arguments_that_cannot_be_decoded(taskq: Run, app: TaskQ) -> None:
    (text_id,) = dead(app, "mail")
    envelope = decode(stored(app, text_id) or b"")
    envelope.body = b"\xc1\xc1"
    store(app, text_id, envelope.with_headers({"user": b"\xc1"}))

    said = taskq("dead", "show", text_id).stdout

    assert "headers   (cannot be decoded) b'\\xc1'" in said
    assert "body      (cannot be decoded) 2 bytes: b'\\xc1\\xc1'" in said


@pytest.mark.parametrize("verb", ["show", "replay", "purge"])
def test_an_id_that_is_no_dead_letter_is_exit_code_1(quick: Run, app: TaskQ, verb: str) -> None:
    alive = app.tasks["mail"].delay("x").id

    for text_id in ("nothing", alive):
        ran = quick("dead", verb, text_id)
        assert ran.returncode == 1
        assert f"{text_id} is not a dead letter" in ran.stderr
    assert survey(app)["mail"].pending == 1


def test_an_id_that_is_none_is_wrong_usage(taskq: Run) -> None:
    assert taskq("dead", "show", "a b").returncode == 2


# -- replay ----------------------------------------------------------------------------------------------


def test_a_replayed_message_begins_anew(taskq: Run, app: TaskQ) -> None:
    app.tasks["mail"].apply_async(("x",), headers={"trace": "t1"})
    (text_id,) = bury(app, "mail")
    envelope = decode(stored(app, text_id) or b"")
    history = {"retries": 3, "first": 1.0, "idle": 2.0, "slept": 1.0, "error": "no", "unknown": 5.0}
    store(app, text_id, envelope.with_headers({**envelope.headers, **history}))

    ran = taskq("dead", "replay", text_id)

    assert (ran.returncode, ran.stdout) == (0, "replayed 1 dead letter\n")
    again = decode(stored(app, text_id) or b"")
    deaths = again.headers.pop("deaths")
    assert [death[1:] for death in deaths] == [["failed", "ValueError: no"]]
    assert (again.headers, again.body, again.head) == (envelope.headers, envelope.body, envelope.head)
    ledger = survey(app)["mail"]
    assert (ledger.pending, ledger.dead, ledger.balance) == (1, 0, 0)


def test_what_a_message_died_of_is_kept_through_its_replays(quick: Run, app: TaskQ) -> None:
    (text_id,) = dead(app, "mail", error="x" * 500)
    for number in range(1, 20):
        assert quick("dead", "replay", text_id).returncode == 0
        bury(app, "mail", error=f"error {number}", number=number)

    lines = quick("dead", "show", text_id).stdout.splitlines()

    before = [line for line in lines if line.startswith("died once ")]
    assert len(before) == 19
    assert re.fullmatch(r"died once 20\S+, failed: ValueError: x+…", before[0])
    assert before[-1].endswith(", failed: ValueError: error 18")
    assert "error     ValueError: error 19" in lines
    assert len(stored(app, text_id) or b"") < 3000
    assert [survey(app)["mail"].counters[name] for name in ("died", "replayed")] == [20, 19]


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_a_dry_run_counts_and_changes_nothing(quick: Run, app: TaskQ, verb: str) -> None:
    ids = dead(app, "mail", 3)

    assert quick("dead", verb, "--name", app.name, "--dry-run").stdout == f"would {verb} 3 dead letters\n"
    assert quick("dead", verb, ids[0], ids[1], "--dry-run").stdout == f"would {verb} 2 dead letters\n"
    assert quick("dead", verb, "nothing", "--dry-run").returncode == 1
    assert survey(app)["mail"].dead == 3


def test_a_replay_of_more_than_what_is_named_asks_on_a_terminal(taskq: Run, app: TaskQ) -> None:
    dead(app, "mail", 3)
    words = [sys.executable, "-m", "taskq", "dead", "replay", "--all", "--name", app.name]

    def answer(typed: bytes) -> subprocess.CompletedProcess[str]:
        ours, theirs = pty.openpty()
        os.write(ours, typed)
        ran = subprocess.run(
            words, stdin=theirs, env=environment(app.client.url), capture_output=True, text=True, timeout=30
        )
        os.close(ours)
        os.close(theirs)
        return ran

    refused = answer(b"n\n")
    assert refused.returncode == 1
    assert "Replay 3 dead letters?" in refused.stderr
    assert survey(app)["mail"].dead == 3
    assert answer(b"y\n").stdout == "replayed 3 dead letters\n"


def test_a_replay_runs(taskq: Run, jobs: Callable[..., Any]) -> None:
    module = jobs(
        """
        @app.task(max_retries=1, default_retry_delay=0, autoretry_for=(OSError,))
        def read(path):
            return open(path).read()
        """
    )
    folder = module.__file__.rpartition("/")[0]
    result = module.read.delay(f"{folder}/data")
    assert taskq("worker", "-A", "jobs", "-c", "1", "--drain").returncode == 0
    seen = [result, module.app.AsyncResult(result.id), module.app.AsyncResult(result.id)]
    assert seen[0].state == "FAILURE"
    for handle in seen[1:]:
        with pytest.raises(TaskError):
            handle.get(timeout=1)
    with open(f"{folder}/data", "w") as file:
        file.write("here now")

    assert taskq("dead", "replay", result.id).returncode == 0
    assert [handle.state for handle in seen[:2]] == ["PENDING"] * 2  # what they saw is over
    with pytest.raises(ResultTimeout):
        seen[2].get(timeout=0.01)
    assert taskq("worker", "-A", "jobs", "-c", "1", "--drain").returncode == 0

    assert [handle.get(timeout=1) for handle in seen] == ["here now"] * 3


def test_a_failure_that_was_seen_is_remembered_when_the_server_knows_it_no_more(
    taskq: Run, jobs: Callable[..., Any]
) -> None:
    module = jobs(
        """
        @app.task(dead_letter=False)
        def fail():
            raise KeyError("gone")
        """
    )
    result = module.fail.delay()
    assert taskq("worker", "-A", "jobs", "-c", "1", "--drain").returncode == 0
    with pytest.raises(KeyError):
        result.get(timeout=1)
    result.forget()

    assert result.state == "FAILURE"
    with pytest.raises(KeyError):
        result.get(timeout=1)


def test_a_replay_of_what_cannot_be_decoded_leaves_it_as_it_is(quick: Run, app: TaskQ) -> None:
    (text_id,) = dead(app, "mail", reason="undecodable")
    value = (stored(app, text_id) or b"")[:-3]
    store(app, text_id, value)

    assert quick("dead", "replay", text_id).returncode == 0
    assert stored(app, text_id) == value
    assert survey(app)["mail"].pending == 1


def test_a_replay_says_what_has_expired_meanwhile(taskq: Run, app: TaskQ) -> None:
    app.tasks["mail"].apply_async(("x",), expires=0.001)
    bury(app, "mail")

    ran = taskq("dead", "replay", "--name", app.name)

    assert ran.stdout == "replayed 1 dead letter\n"
    assert "1 of them have expired meanwhile" in ran.stderr


def test_what_dies_again_is_not_replayed_again(app: TaskQ, session_server: Server) -> None:
    dead(app, "mail", 5)
    broker = Broker(session_server.url, app.client.keys, send_timeout=5.0)
    graveyard = Graveyard([app.client.keys], Filters(), broker.run(looking.server_time()))

    replayed = 0
    while (letters := broker.perform(graveyard.next_page())) is not None:
        for letter in letters:
            assert broker.perform(replay([letter])) == [True]
            replayed += 1
            bury(app, "mail", number=replayed)
        graveyard.taken(len(letters))

    assert replayed == 5
    assert survey(app)["mail"].dead == 5
    broker.close()


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_without_ids_and_filters_all_must_be_said(quick: Run, verb: str) -> None:
    ran = quick("dead", verb)

    assert ran.returncode == 2
    assert f"name the ids to {verb}, or filter, or say --all" in ran.stderr


def test_an_id_must_also_pass_the_filters(quick: Run, app: TaskQ) -> None:
    (text_id,) = dead(app, "mail")

    assert quick("dead", "replay", text_id, "--task", "bill").returncode == 1
    assert quick("dead", "replay", text_id, "--name", "another").returncode == 2
    assert quick("dead", "replay", text_id, "--task", "mail", "--name", app.name).returncode == 0


# -- purge -----------------------------------------------------------------------------------------------


def test_purge_asks_first(taskq: Run, app: TaskQ) -> None:
    ids = dead(app, "mail", 3)

    refused = taskq("dead", "purge", ids[0], ids[1], typed="n\n")
    assert "Delete 2 dead letters for good?" in refused.stderr
    assert survey(app)["mail"].dead == 3

    assert taskq("dead", "purge", ids[0], ids[1], typed="y\n").stdout == "purged 2 dead letters\n"
    ledger = survey(app)["mail"]
    assert (ledger.dead, ledger.counters["purged"], ledger.balance) == (1, 2, 0)
    assert stored(app, ids[0]) is None


def test_purge_by_filter_over_many_pages_takes_exactly_those(taskq: Run, app: TaskQ) -> None:
    for number in range(8):  # 1,000 of two reasons, mixed
        dead(app, "mail", 125, reason="crashed" if number % 2 else "failed", number=number)

    ran = taskq("dead", "purge", "--name", app.name, "--reason", "crashed", "--yes")

    assert ran.stdout == "purged 500 dead letters\n"
    left = taskq("dead", "ls", "--json", "--name", app.name).stdout.splitlines()
    assert len(left) == 500
    assert {json.loads(line)["reason"] for line in left} == {"failed"}
    assert taskq("dead", "replay", "--name", app.name).stdout == "replayed 500 dead letters\n"
    ledger = survey(app)["mail"]
    assert (ledger.pending, ledger.dead, ledger.balance) == (500, 0, 0)


def test_all_means_the_whole_server(taskq: Run, own_server: Server) -> None:
    app = new_app(own_server.url)
    app.task(name="mail", queue="mail")(lambda n: None)
    publish(app)
    dead(app, "mail", 3)

    assert taskq("dead", "purge", "--all", "-y", url=own_server.url).stdout == "purged 3 dead letters\n"
    app.client.broker.close()
