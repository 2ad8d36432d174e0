"""The ``taskq`` command: one module a sub-command, imported when it is called.

Packages may add commands under the entry point group ``taskq.commands``.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

_COMMANDS = {
    "worker": "Run the tasks of an app.",
    "reaper": "Bring back what lost workers held, and promote what is due.",
    "queues": "Show what is in every queue.",
    "ls": "List what waits in a queue.",
    "ps": "Show what runs, where, and since when.",
    "workers": "Show the workers: how each is, and what it holds.",
    "why": "Say in one sentence why a message does not run.",
    "pause": "Pause a queue or a task: nothing more of it is taken.",
    "resume": "Resume a paused queue or task.",
    "revoke": "Revoke messages: they do not run, or stop running.",
    "purge": "Delete what waits in a queue.",
    "limit": "Show or set the limits of a task.",
    "quiet": "Tell a worker to take no more messages.",
    "stop": "Stop a worker.",
    "ping": "Ask whether the server answers and a worker lives.",
    "audit": "Check everything that is stored, and mend what is wrong.",
    "dead": "Look at, replay or purge dead letters.",
    "cron": "Look at and change periodic entries.",
    "completion": "Print the completion script for a shell.",
    "demo": "A mail-out with a worker killed half-way; nothing to set up.",
    "chaos": "Break everything for a minute, and prove that nothing is lost.",
}
_GROUP = "taskq.commands"


class _Lazy(click.Group):
    """A group whose commands are imported when they are called, so that ``taskq --help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module = importlib.import_module(f"taskq.cli.{cmd_name}")
            return module.command  # type: ignore[no-any-return]
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else plugin.load()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; the error for an unknown one names the nearest ones."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from taskq.spelling import guess

            raise click.UsageError(f"no such command {args[0]!r}{guess(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            *_COMMANDS.items(),
            *((name, f"from {p.dist.name if p.dist else '?'}") for name, p in _plugins().items()),
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugins() -> dict[str, Any]:
    from importlib_metadata import entry_points

    return {point.name: point for point in entry_points(group=_GROUP) if point.name not in _COMMANDS}


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib_metadata import version

        click.echo(f"taskq {version('taskq-redis')}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.option("-A", "--app", "path", hidden=True, help="Celery's order: taskq -A shop worker.")
@click.pass_context
def main(ctx: click.Context, path: str | None) -> None:
    """Tasks on Redis and Valkey: nothing lost."""
    if path is None:
        return
    if ctx.invoked_subcommand not in ("worker", "cron"):
        raise click.UsageError(f"taskq {ctx.invoked_subcommand} needs no code, so it takes no -A; for an app: --name")
    os.environ.pop("TASKQ_APP", None)  # which would be taken before what is said here
    ctx.default_map = {"worker": {"path": path}, "cron": {"add": {"path": path}, "sync": {"path": path}}}
