"""What several commands share: finding the app with the right exit code, reaching a server without an app."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

import click

from taskq.config import load_settings, project_dir
from taskq.errors import BrokerError, BrokerRefused, ConfigError, SerializationError, ServerUnsuitable
from taskq.extras import how_to_install

if TYPE_CHECKING:
    from taskq.app import TaskQ
    from taskq.broker.pool import Broker

#: Exit code for what the user has to mend on the command line or in the app.
USAGE = 2

url_option = click.option(
    "--url", metavar="URL", help="The server; TASKQ_URL or the project's embedded one unless given."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what it would do, and change nothing.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
names_option = click.option("--name", "names", multiple=True, metavar="APP", help="Of this app; may be repeated.")
name_option = click.option("--name", "app", metavar="APP", help="Of this app; needed if the server has several.")


def app_of(path: str) -> TaskQ:
    """Return the app ``-A`` names; on failure say why and leave with exit code 2."""
    from taskq.loading import find_app

    try:
        return find_app(path)
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
    except Stopped:
        raise
    except BaseException as error:  # the user's module may raise anything, SystemExit too
        frames = error.__traceback__
        while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        click.echo(f"taskq: importing {path!r} failed, see above", err=True)
    sys.exit(USAGE)


def _is_ours(filename: str) -> bool:
    return "importlib" in filename or filename.endswith(("taskq/loading.py", "cli/common.py"))


def server_url(url: str | None, *, new: bool = False) -> str:
    """Return the URL to use without an app: the given one, the configured one, the project's embedded server.

    The latter, if not ``new``, only where there has been one: else a command in the wrong folder would start one there.
    """
    try:
        settings = load_settings({"url": url})
        if settings.url is not None:
            return settings.url
        from pathlib import Path

        from taskq.broker.net.embedded import FOLDER, embedded_url

        project = Path(project_dir())
        if not new and not (project / FOLDER).is_dir():
            raise ConfigError(
                f"no server is named (by --url, TASKQ_URL or [tool.taskq]), and {project} has never had an embedded "
                "one. Go to the folder of your project, or name the server"
            )
        return embedded_url(project)
    except (ConfigError, BrokerError, OSError) as error:  # OSError: no files can be made in the project's folder
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


@contextmanager
def reaching(url: str | None, seconds: float = 5.0) -> Iterator[Broker]:
    """Reach a server; an error of it, or what was given and cannot work, is a line and exit code 2.

    A server that does not answer is tried for that many seconds.
    """
    try:
        yield broker_for(server_url(url), "any", seconds)
    except (BrokerError, ConfigError, SerializationError) as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


def agree(question: str, yes: bool) -> None:
    """Ask before an act that cannot be taken back, unless ``yes``; leave if the answer is not yes."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:  # nobody is there to answer
        click.echo("\ntaskq: there was no answer, so nothing was done; --yes does it without a question", err=True)
        sys.exit(USAGE)
    if not agreed:
        click.echo("taskq: nothing was done", err=True)
        sys.exit(1)


def raw_id_of(text_id: str) -> bytes:
    """Return the stored form of an id from the command line."""
    from taskq.message.ids import id_from_text

    try:
        return id_from_text(text_id)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def broker_for(url: str, app: str, seconds: float = 5.0) -> Broker:
    """Return a broker for an app by name; leave with exit code 2 if the URL cannot be read."""
    from taskq.broker.pool import Broker
    from taskq.broker.topology import topology

    try:
        return Broker(url, topology(app), send_timeout=seconds)
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


class Stopped(BaseException):
    """The user asked for the end."""


def stop_at_once() -> None:
    """From now on SIGTERM and SIGINT raise `Stopped`, wherever this process is; the second time they end it."""
    asked = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            os._exit(0)
        asked = True
        raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def wait_for_server(broker: Broker, server_check: str = "warn", once: bool = False) -> None:
    """Wait until the server can be used, saying for what; leave with exit code 2 if it never can, or must not be.

    With ``once`` it is asked for some seconds only.
    """
    from taskq.broker.net.server import check_server

    told = ""
    while True:
        try:
            warnings = check_server(broker)
            for warning in warnings:
                click.echo(f"taskq: {'warning: ' if server_check == 'warn' else ''}{warning}", err=True)
            if warnings and server_check == "refuse":
                raise ServerUnsuitable(f"{broker.where} may lose messages, and server_check=refuse forbids that")
            return
        except (ServerUnsuitable, BrokerRefused) as error:
            click.echo(f"taskq: {error}", err=True)
            sys.exit(USAGE)
        except BrokerError as error:
            if once:
                click.echo(f"taskq: {error}", err=True)
                sys.exit(USAGE)
            if str(error) != told:
                click.echo(f"taskq: waiting for the server: {error}", err=True)
                told = str(error)
            time.sleep(0.2)


def ready_for_shows(command: str) -> None:
    """Prepare for a show that starts processes; leave with exit code 2 if it cannot run here."""
    if sys.platform == "win32":
        click.echo(f"taskq: workers need fork or POSIX signals; on Windows run taskq {command} in WSL", err=True)
        sys.exit(USAGE)
    missing = [name for name in ("rich", "aiosmtpd") if find_spec(name) is None]
    if missing:
        click.echo(f"taskq: taskq {command} needs {' and '.join(missing)}: {how_to_install('demo')}", err=True)
        sys.exit(USAGE)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # what was started is stopped on the way out


def _leave(_number: int, _frame: Any) -> NoReturn:
    sys.exit(1)
