"""The page about JSON has every field that a command writes, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.cli import main
from tests.cli.lost import bury, publish, take
from tests.docs.pages import ROOT
from tests.support import Server, new_app

PAGE = (ROOT / "docs" / "reference" / "json.md").read_text()
SECTIONS = dict(re.findall(r"<!-- json: (.*?) -->\n(.*?)(?=<!-- json|\Z)", PAGE, re.S))
#: Fields of what is inside other fields.
INSIDE = {
    "workers": {"child", "lanes", "lane", "incarnation", "holds", "idle", "busy", "quiet", "stopping"},
    "limit TASK": {"kind", "limit", "rate", "burst", "max_concurrency", "each_key", "breaker", "failures", "of"}
    | {"pause", "key", "used", "slots", "ids"},
    "ls QUEUE": {"suspects", "ranked"},
    "ps": {"main", "loop", "thread"},
    "ping": {"worker", "alive"},
    "dead show ID": {"accepted", "expires", "retries", "headers", "args", "kwargs"},
    "cron ls": {"code", "command"},
}  # fmt: skip


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    made = new_app(session_server.url)

    @made.task(name="mail", max_concurrency=2)
    def mail(n: int) -> None: ...

    made.periodic("hourly", "@hourly", mail, (1,))
    publish(made)
    yield made
    made.close()


@pytest.fixture
def told(app: TaskQ, session_server: Server) -> Callable[[str], dict[str, object]]:
    """The first line of what a command says as JSON."""
    handle = app.tasks["mail"].delay(1)
    dead = bury(app, "mail")[0]
    assert dead == handle.id
    app.tasks["mail"].delay_many([(2,), (3,)])
    take(app, "mail", 1)
    (entry,) = app.entries.values()
    broker, keys = app.client.broker, app.client.keys
    broker.run(Command(None, [b"HSET", keys["periodic"], entry.name, entry.stored], int))

    def tell(command: str) -> dict[str, object]:
        given = {"QUEUE": "mail", "TASK": "mail", "ENTRY": "hourly", "ID": dead}
        words = [given.get(word, word) for word in command.split()]
        ran = CliRunner(env={"TASKQ_URL": session_server.url}).invoke(main, [*words, "--json", "--name", app.name])
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.stdout.splitlines()[0])  # type: ignore[no-any-return]

    return tell


@pytest.mark.parametrize("command", SECTIONS)
def test_the_fields_are_those_of_the_page(command: str, told: Callable[[str], dict[str, object]]) -> None:
    section = SECTIONS[command]
    cells = re.findall(r"^\| (.*?) \|", section, re.M) or [section]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    named |= {"id", "app", "queue", "task", "reason", "error", "message", "died_at", "age"} & told(command).keys()

    assert told(command).keys() <= named, "each field is on the page"
    assert named - INSIDE.get(command, set()) <= told(command).keys(), "the page names none that there is not"


def test_every_command_that_has_json_is_on_the_page() -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text()
    with_json = set()
    for heading, text in re.findall(r"^#+ taskq (.+?)\n(.*?)(?=^#+ taskq |\Z)", reference, re.M | re.S):
        if "--json" in text:
            with_json.add(heading)

    assert with_json == {
        " ".join(word for word in one.split() if word.islower() and word[0] != "-") for one in SECTIONS
    }
