"""``taskq why``: one sentence about a message; needs no app's code."""

from __future__ import annotations

import sys
import time

import click

from taskq.cli.common import names_option, raw_id_of, reaching, url_option
from taskq.cli.output import as_json_line, json_option
from taskq.cli.tables import Age


@click.command()
@click.argument("text_id", metavar="ID")
@click.option("--measure", type=Age(), metavar="AGE", help="Look again after 10 (s), 2m, and say how fast it goes on.")
@names_option
@url_option
@json_option
def command(text_id: str, measure: float | None, names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Say in one sentence why a message does not run.

    With --measure it also says how many of those before it went in that time, and when its turn comes at that pace.
    Exit codes: 0 said, 1 no message and no result of that id exists, 2 wrong usage or no server, or no such app.
    """
    from taskq.views.apps import apps_at
    from taskq.views.finding import ask_why
    from taskq.views.why import pace, sentence

    raw_id = raw_id_of(text_id)
    with reaching(url) as broker:
        text = f"No app is known at {broker.where}."
        for app in broker.perform(apps_at(broker.where, names)):
            reply = broker.perform(ask_why(app, raw_id))
            text = sentence(raw_id, reply)
            if {b"value", b"result"} & set(reply[::2]):
                if measure and b"ahead" in reply[::2]:
                    time.sleep(measure)
                    before, reply = reply, broker.perform(ask_why(app, raw_id))
                    text = f"{sentence(raw_id, reply)} {pace(raw_id, before, reply)}".strip()
                click.echo(as_json_line({"id": text_id, "app": app.app, "why": text}) if as_json else text)
                return
    click.echo(as_json_line({"id": text_id, "app": None, "why": text}) if as_json else text)
    sys.exit(1)
