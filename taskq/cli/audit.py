"""``taskq audit``: check everything that is stored, and mend what is wrong; needs no app's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.output import as_json_line, json_option, seconds
from taskq.cli.tables import age, moment, one_line
from taskq.config import whoami

if TYPE_CHECKING:
    from taskq.views.audits import Audit


@click.command()
@click.option("--last", is_flag=True, help="Make none: say when the last one was, and what it mended.")
@names_option
@url_option
@json_option
def command(last: bool, names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Compare all that is stored, and mend what is wrong.

    That is messages in no place or in two, counters and locks that a deleted key or a restored snapshot has left, and
    the like. What was left on its way to another partition is carried over. Workers and reapers do it once a minute;
    this does it now. It is slow on purpose, since it leaves the server to others in between. Exit codes: 0 done, 2
    wrong usage or no server, or no such app.
    """
    from taskq.broker.commands import looking
    from taskq.broker.onward import carry_all
    from taskq.upkeep.housekeeping import look_through
    from taskq.views.apps import apps_at
    from taskq.views.audits import last_audit

    with reaching(url) as broker:
        for app in broker.perform(apps_at(broker.where, names)):
            if not last:
                broker.perform(carry_all(app))
                for keys in app.all:
                    broker.perform(look_through(keys, whoami()))
            found = broker.perform(last_audit(app))
            now = broker.run(looking.server_time())
            click.echo(as_json_line(_document(app.app, found)) if as_json else _sentence(app.app, found, now))


def _sentence(app: str, found: Audit, now: float) -> str:
    if not found.at:
        return f"{app}: no audit has been made yet"
    text = (
        f"{app}: the last audit was {age(now - found.at)} ago by {one_line(found.by)}, took {found.seconds:.1f} s, and "
        f"mended {_listed(found.mended)}"
    )
    if found.mended_at and found.mended_at != found.at:
        text += f"; the last that mended anything was {age(now - found.mended_at)} ago: {_listed(found.mended_then)}"
    return text


def _listed(mended: Mapping[str, int]) -> str:
    return one_line(", ".join(sorted(f"{n} {what}" for what, n in mended.items()))) or "nothing"


def _document(app: str, found: Audit) -> dict[str, Any]:
    return {
        "app": app,
        "at": moment(found.at) if found.at else None,
        "seconds": seconds(found.seconds) if found.at else None,
        "by": found.by or None,
        "mended": dict(found.mended),
        "mended_at": moment(found.mended_at) if found.mended_at else None,
        "mended_then": dict(found.mended_then),
    }
