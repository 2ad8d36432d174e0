"""``taskq pause``: let nothing more be taken from a queue, or of a task; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.common import app_at, dry_run_option, keys_of, name_option, reaching, url_option
from taskq.cli.tables import Age
from taskq.config import check_name, whoami
from taskq.errors import ConfigError
from taskq.spelling import count


@click.command()
@click.argument("what", metavar="QUEUE|TASK")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder later.")
@click.option("--seconds", type=Age(), default=0.0, metavar="AGE", help="Resumed by itself after 90 (s), 30m, 2h.")
@click.option("--new", is_flag=True, help="Also a name that nobody has used yet.")
@dry_run_option
@name_option
@url_option
def command(what: str, reason: str, seconds: float, new: bool, dry_run: bool, app: str | None, url: str | None) -> None:
    """Let nothing more be taken from a queue, or of a task, by any worker.

    What runs goes on, what comes waits. It lasts until `taskq resume`, whatever restarts. Pausing again gives a new
    reason and time. Exit codes: 0 done, 2 wrong usage or no server, or a name that nobody has used yet.
    """
    from taskq.broker.commands import looking, steering
    from taskq.cli.names import Known
    from taskq.spelling import guess

    with reaching(url) as broker:
        keys = keys_of(app_at(broker, app, new=new))
        known = Known.at(broker, [keys]).all
        if check_name("queue or task", what) not in known and not new:
            raise ConfigError(
                f"app {keys.app} has no queue or task {what} yet, so nothing was paused (--new pauses it all the same)"
                f"{guess(what, known)}"
            )
        if dry_run:
            survey = broker.run(looking.survey(keys)).get(what, looking.QueueSurvey({}))
            waiting = survey.pending + survey.suspects + survey.gated
            click.echo(
                f"would pause {what}: {count(waiting, 'message')} waiting there, {survey.processing:,} running on"
            )
            return
        first = broker.run(steering.pause(keys, what, seconds, whoami(), reason))
        click.echo(f"paused {what}" if first else f"{what} was paused before: the new reason and time hold")
