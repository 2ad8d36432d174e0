"""What several commands share: finding the app with the right exit code, reaching a server without an app."""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING

import click

from taskq.config import load_settings, project_dir
from taskq.errors import BrokerError, BrokerRefused, ConfigError, ServerUnsuitable

if TYPE_CHECKING:
    from taskq.app import TaskQ
    from taskq.broker.pool import Broker

#: Exit code for what the user has to mend on the command line or in the app.
USAGE = 2


def app_of(path: str) -> TaskQ:
    """Return the app ``-A`` names; on failure say why and leave with exit code 2."""
    from taskq.loading import find_app

    try:
        return find_app(path)
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
    except BaseException as error:  # the user's module may raise anything, SystemExit too
        frames = error.__traceback__
        while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        click.echo(f"taskq: importing {path!r} failed, see above", err=True)
    sys.exit(USAGE)


def _is_ours(filename: str) -> bool:
    return "importlib" in filename or filename.endswith(("taskq/loading.py", "cli/common.py"))


def server_url(url: str | None) -> str:
    """Return the URL to use without an app: the given one, the configured one, the project's embedded server."""
    try:
        settings = load_settings({"url": url})
        if settings.url is not None:
            return settings.url
        from pathlib import Path

        from taskq.broker.embedded import embedded_url

        return embedded_url(Path(project_dir()))
    except (ConfigError, BrokerError, OSError) as error:  # OSError: no files can be made in the project's folder
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


def broker_for(url: str, app: str) -> Broker:
    """Return a broker for an app by name; leave with exit code 2 if the URL cannot be read."""
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker

    try:
        return Broker(url, Keys(app), send_timeout=5.0)
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


def wait_for_server(broker: Broker, server_check: str = "warn") -> None:
    """Wait until the server answers, saying so; leave with exit code 2 if it cannot be used, or must not be."""
    from taskq.broker.server import check_server

    told = 0.0
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
            if time.monotonic() - told > 10:
                click.echo(f"taskq: waiting for the server: {error}", err=True)
                told = time.monotonic()
