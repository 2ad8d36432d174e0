"""``taskq reaper``: a single pass, a dry run, the daemon; with no app's code in reach."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import redis

from taskq import TaskQ
from taskq.broker import call
from taskq.broker.commands import keeping, leasing, looking
from tests.cli.conftest import Background, Ran
from tests.cli.lost import publish, take, texts
from tests.support import Server, Worker, new_app, survey, wait_until

Run = Callable[..., Ran]
Start = Callable[..., Background]


def an_app(url: str, lease: float) -> TaskQ:
    """An app whose workers have been there, with the task ``work``."""
    app = new_app(url, lease=lease)

    @app.task(name="work", queue="work")
    def work(n: int) -> int:
        return n

    publish(app)
    return app


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    made = an_app(session_server.url, lease=15)
    yield made
    made.client.broker.close()


@pytest.fixture
def hasty(session_server: Server) -> Iterator[TaskQ]:
    """An app with the shortest lease there is."""
    made = an_app(session_server.url, lease=1)
    yield made
    made.client.broker.close()


def lose(app: TaskQ, n: int, lease_ms: int = 1) -> list[str]:
    """Have ``n`` messages taken by a worker that is gone, and its lease ended."""
    app.tasks["work"].delay_many(range(n))
    ids = texts(take(app, "work", n, lease_ms=lease_ms))
    keys, own = app.client.keys, app.settings.lease_ms  # that of 1 ms is a trick of this test
    app.client.broker.run(call.Command(None, ["ZADD", keys["terms"], own, "lost"], int))
    assert len(ids) == n
    return ids


def renew(app: TaskQ, *incarnations: str) -> None:
    """Show a sign of life, so that leases that have ended count as such at once."""
    app.client.broker.run(leasing.renew(app.client.keys, app.settings.lease_ms, [], incarnations))


def everything(server: Server, app: TaskQ) -> dict[bytes, bytes]:
    """Every key of an app, with its value."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        return {key: client.dump(key) for key in client.scan_iter(app.client.keys.prefix + b"*")}


# -- a single pass ---------------------------------------------------------------------------------------


def test_a_pass_recovers_what_a_lost_worker_held_and_says_where_it_went(taskq: Run, app: TaskQ) -> None:
    renew(app)
    ids = lose(app, 3)

    ran = taskq("reaper", "--once", "--name", app.name)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        f"{app.name}: recovered 3 messages of incarnation lost, whose lease ended",
        *(f"  {text_id}  to run alone, from queue work" for text_id in ids),
        f"{app.name}: recovered 3 messages of 1 incarnation, promoted 0 due messages, purged 0 old dead letters",
    ]
    assert (survey(app)["work"].suspects, survey(app)["work"].balance) == (3, 0)


def test_a_pass_where_nobody_renewed_waits_for_one_lease_and_says_so(taskq: Run, hasty: TaskQ) -> None:
    lose(hasty, 2)
    began = time.monotonic()

    ran = taskq("reaper", "--once", "--name", hasty.name)

    assert ran.returncode == 0
    assert 1.0 <= time.monotonic() - began < 10
    assert f"{hasty.name}: nobody renewed leases lately, so 1 ended lease got a fresh one first: waiting up to 1 s" in (
        ran.stderr
    )
    assert "recovered 2 messages of 1 incarnation" in ran.stdout


def test_a_pass_leaves_alone_a_worker_that_turns_out_to_live(background: Start, hasty: TaskQ) -> None:
    lose(hasty, 1)
    reaper = background("reaper", "--once", "--name", hasty.name)
    wait_until(lambda: "waiting up to 1 s" in reaper.err, "it waits")

    renew(hasty, "lost")

    assert reaper.process.wait(10) == 0
    assert "incarnation lost lives: its lease was renewed" in reaper.err
    assert survey(hasty)["work"].processing == 1


def test_a_pass_that_was_stopped_meanwhile_gives_one_more_lease_and_goes_on(background: Start, hasty: TaskQ) -> None:
    lose(hasty, 1)
    reaper = background("reaper", "--once", "--name", hasty.name)
    wait_until(lambda: "waiting up to 1 s" in reaper.err, "it waits")
    run = hasty.client.broker.run

    reaper.process.send_signal(signal.SIGSTOP)
    pulse = run(looking.last_pulse(hasty.client.keys))
    wait_until(lambda: run(looking.server_time()) - pulse > 0.6, "the pulse is old")
    reaper.process.send_signal(signal.SIGCONT)

    assert reaper.process.wait(10) == 0
    assert "recovered 1 message of 1 incarnation" in reaper.out


def test_a_pass_notices_that_another_was_faster(background: Start, hasty: TaskQ) -> None:
    lose(hasty, 1)
    reaper = background("reaper", "--once", "--name", hasty.name)
    wait_until(lambda: "waiting up to 1 s" in reaper.err, "it waits")

    run = hasty.client.broker.run
    run(leasing.close(hasty.client.keys, "lost", died=True, alone=True, running=()))

    assert reaper.process.wait(10) == 0
    assert "incarnation lost was recovered by another" in reaper.err


def test_a_pass_leaves_leases_alone_that_have_not_ended(taskq: Run, app: TaskQ) -> None:
    lose(app, 1, lease_ms=60_000)

    assert "recovered 0 messages of 0 incarnations" in taskq("reaper", "--once", "--name", app.name).stdout
    assert survey(app)["work"].processing == 1


def test_a_pass_promotes_what_is_due_and_keeps_the_time_for_nobody(
    taskq: Run, app: TaskQ, session_server: Server
) -> None:
    app.tasks["work"].apply_async((1,), countdown=0.01)
    app.tasks["work"].apply_async((1,), countdown=600)

    assert "promoted 1 due message," in taskq("reaper", "--once", "--name", app.name).stdout
    assert (survey(app)["work"].pending, survey(app)["work"].scheduled) == (1, 1)
    promote = keeping.promote(app.client.keys, "other", 10, 5000)
    wait_until(lambda: app.client.broker.run(promote).wait == 5.0, "another has become the keeper")


def test_a_pass_goes_over_every_app(taskq: Run, own_server: Server) -> None:
    apps = [an_app(own_server.url, lease=1) for _ in range(3)]
    for app in apps:
        lose(app, 1)

    ran = taskq("reaper", "--once", url=own_server.url)

    for app in apps:
        assert f"{app.name}: recovered 1 message of 1 incarnation" in ran.stdout
        app.client.broker.close()


# -- a dry run -------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_pass_would_do_and_changes_nothing(
    taskq: Run, app: TaskQ, session_server: Server
) -> None:
    app.tasks["work"].apply_async((1,), countdown=0.01)
    renew(app)
    (text_id,) = lose(app, 1)
    before = everything(session_server, app)

    ran = taskq("reaper", "--dry-run", "--name", app.name)

    assert ran.returncode == 0
    assert ran.stdout.splitlines() == [
        f"{app.name}: would recover 1 message of incarnation lost, whose lease ended",
        f"  {text_id}  held, from queue work",
        f"{app.name}: would promote 1 due message, purge 0 old dead letters",
    ]
    assert everything(session_server, app) == before


def test_a_dry_run_says_that_leases_would_get_fresh_ones_first(taskq: Run, app: TaskQ) -> None:
    lose(app, 1)

    said = taskq("reaper", "--dry-run", "--name", app.name).stdout

    assert "nobody renewed leases lately, so each would first get a fresh one of 15 s" in said


# -- the daemon ------------------------------------------------------------------------------------------


def test_the_daemon_gives_back_what_a_killed_worker_held(
    jobs: Callable[..., ModuleType], start_worker: Callable[..., Worker], background: Start
) -> None:
    module = jobs(
        """
        @app.task
        def once_slow(path):
            if os.path.exists(path):
                return "second run"
            open(path, "w").close()
            time.sleep(60)
        """,
        settings="lease=1",
    )
    folder = Path(module.__file__ or "").parent
    reaper = background("reaper", "--name", module.app.name)
    worker = start_worker("-c", "1")
    result = module.once_slow.delay(str(folder / "ran"))
    wait_until((folder / "ran").exists, "it runs")

    worker.kill_group()

    wait_until(lambda: result.id in reaper.out, "the reaper has recovered it", seconds=5)
    start_worker("-c", "1")
    assert result.get(timeout=30) == "second run"
    assert reaper.end() == 0
    assert "taskq reaper: stopped" in reaper.err


@pytest.mark.parametrize("number", [15, 2])
def test_the_daemon_ends_at_once_when_told_to(background: Start, app: TaskQ, number: int) -> None:
    reaper = background("reaper", "--name", app.name)
    wait_until(lambda: "looking after" in reaper.err, "it runs")
    began = time.monotonic()

    assert reaper.end(number) == 0
    assert time.monotonic() - began < 4


def test_the_daemon_keeps_the_time_of_a_schedule(background: Start, app: TaskQ) -> None:
    reaper = background("reaper", "--name", app.name)
    wait_until(lambda: "looking after" in reaper.err, "it runs")
    began = time.monotonic()

    app.tasks["work"].apply_async((1,), countdown=0.3)

    wait_until(lambda: survey(app)["work"].pending == 1, "it is promoted")
    assert 0.25 < time.monotonic() - began < 4


def test_the_daemon_survives_its_server(background: Start, own_server: Server) -> None:
    app = an_app(own_server.url, lease=1)
    reaper = background("reaper", url=own_server.url)
    wait_until(lambda: "looking after" in reaper.err, "it runs")
    own_server.kill()
    wait_until(lambda: "no answer from" in reaper.err, "it has noticed")

    own_server.start()

    wait_until(lambda: "answers again" in reaper.err, "it goes on")
    (text_id,) = lose(app, 1)
    wait_until(lambda: text_id in reaper.out, "it reaps")
    assert reaper.end() == 0
    assert reaper.err.count("no answer from") == 1
    assert "Traceback" not in reaper.err
    app.client.broker.close()


def test_the_daemon_finds_apps_that_come_later_beside_those_that_somebody_has_spoilt(
    background: Start, own_server: Server
) -> None:
    with redis.Redis(unix_socket_path=str(own_server.socket)) as client:
        client.sadd("tq:apps", "a.spoilt", b"\xff")
        client.set("tq:{a.spoilt:0}:settings", "x")
    reaper = background("reaper", url=own_server.url)
    wait_until(lambda: "for all apps" in reaper.err, "it runs")
    app = an_app(own_server.url, lease=1)
    (text_id,) = lose(app, 1)

    wait_until(lambda: text_id in reaper.out, "it has found the app and reaped")
    assert reaper.err.count("cannot look after a.spoilt") == 1
    assert "Traceback" not in reaper.err

    app.client.broker.close()


# -- wrong usage -----------------------------------------------------------------------------------------


def test_a_wrong_url(taskq: Run) -> None:
    ran = taskq("reaper", "--url", "http://localhost")

    assert ran.returncode == 2
    assert "does not begin with one of redis://" in ran.stderr


def test_an_app_that_nobody_knows_is_said_to_be_so(taskq: Run) -> None:
    ran = taskq("reaper", "--once", "--name", "nobody")

    assert ran.returncode == 2
    assert "has no app 'nobody'" in ran.stderr
