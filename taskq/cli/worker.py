"""``taskq worker``."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from taskq.cli.common import USAGE, Stopped, app_of, stop_at_once, wait_for_server
from taskq.config import START_METHODS
from taskq.errors import BrokerError, ConfigError
from taskq.extras import how_to_install
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.app import TaskQ
    from taskq.broker.pool import Broker
    from taskq.worker.plan import Plan

_LEVELS = ["debug", "info", "warning", "error", "critical"]


@click.command()
@click.option("-A", "--app", "path", envvar="TASKQ_APP", required=True, metavar="MODULE[:ATTR]", help="The app.")
@click.option(
    "-c",
    "--concurrency",
    default="auto",
    show_default=True,
    metavar="N",
    help="Child processes; auto: as many as CPUs this worker may use.",
)
@click.option(
    "-Q",
    "--queues",
    metavar="A,B:N",
    help="Queues to serve instead of those of all tasks; with shares of the time, as in critical:6,default:2.",
)
@click.option("--strict", is_flag=True, help="Take from the first of -Q as long as there is something, and so on.")
@click.option("-n", "--name", help="Name of this worker; <app>.<host>:<pid> unless given.")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    show_default="warning, or as the app's module has configured logging",
)
@click.option(
    "--async-slots",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Coroutines a child runs at once.",
)
@click.option("--threads", type=click.IntRange(1, 1000), help="Run sync tasks in this many threads a child.")
@click.option("--max-tasks-per-child", type=click.IntRange(1), metavar="N", help="Replace a child after N messages.")
@click.option(
    "--max-memory-per-child", type=click.IntRange(1), metavar="MIB", help="Replace a child that has grown beyond this."
)
@click.option("--autoscale", metavar="MIN,MAX", help="As many children as the work needs, instead of -c.")
@click.option(
    "--start-method",
    type=click.Choice(START_METHODS),
    show_default="fork on Linux, else spawn",
    help="How to start children. Do not fork if what the app imports starts threads.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=25.0,
    show_default=True,
    help="Seconds running tasks get after SIGTERM.",
)
@click.option("--drain", "--once", "drain", is_flag=True, help="End when nothing can run any more.")
@click.option(
    "--reload", is_flag=True, help="For development: start anew when a Python file below this folder changes."
)
def command(path: str, reload: bool, loglevel: str | None, **options: Any) -> None:
    """Run the tasks of an app.

    SIGTERM or Ctrl-C: start nothing more, let running tasks end within --grace, return the rest to their queues. The
    second time: at once. SIGHUP: replace every child without losing a message. SIGQUIT: show the stack of every thread.

    Exit codes: 0 all ended, 1 running tasks were interrupted (and returned to their queues), 2 wrong usage, 3 with
    --drain: some messages are left that cannot run now, since something is paused or a limit lets nothing pass.
    """
    if sys.platform == "win32":
        click.echo("taskq: workers need fork or POSIX signals; on Windows run them in WSL or a container", err=True)
        sys.exit(USAGE)
    if reload:
        run_and_reload()
    stop_at_once()  # until there are children, which are given time
    try:
        sys.exit(run(path, loglevel, options))
    except Stopped:
        click.echo("taskq: stopped before it began", err=True)
    except (ConfigError, BrokerError) as error:  # also one that answered, and then refused what a worker begins with
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


def run(path: str, loglevel: str | None, options: dict[str, Any]) -> int:
    """Run a worker to its end; returns its exit code.

    Raises:
        ConfigError: Options that cannot work, or an app without tasks.
        BrokerError: The server refuses what a worker begins with.
        Stopped: A signal came before there were any children.
    """
    from taskq.loading import set_up_logging
    from taskq.worker.child.surroundings import mend_streams
    from taskq.worker.parent.supervisor import Supervisor

    app = app_of(path)
    set_up_logging(loglevel or "")
    mend_streams()  # whatever the module has done to them
    plan = plan_of(app, path, loglevel or "", options)
    broker = app.client.broker
    wait_for_server(broker, app.settings.server_check)
    if options["queues"]:
        _check_queues(app, plan, broker)
    for pattern in app.routes.unused(app.tasks):
        click.echo(f"taskq: warning: routes: no task is named like {pattern!r}", err=True)
    supervisor = Supervisor(app, plan)
    click.echo(banner(app, broker.where, plan), err=True)
    code = supervisor.run()
    for line in supervisor.left.lines if supervisor.left else ():
        click.echo(f"taskq: left: {line}", err=True)
    return code


def plan_of(app: TaskQ, path: str, loglevel: str, options: dict[str, Any]) -> Plan:
    """Make the worker's plan from the command line.

    Raises:
        ConfigError: An option that cannot work, or an app without tasks.
    """
    from importlib.metadata import version  # loaded already

    from taskq.config import check_name
    from taskq.worker.plan import Plan, lanes_of, read_weights

    known = {task.queue for task in app.tasks.values()}
    only, weights = read_weights(options["queues"] or "", known, options["strict"])
    if options["strict"] and not only:
        raise ConfigError("--strict takes the queues in the order of -Q: name them there")
    if weights:
        _check_weights(app, only, "--strict" if options["strict"] else "weights in -Q")
    lanes = lanes_of(app.tasks, only, options["threads"] is not None, weights, options["strict"])
    low, high = _scale(options["autoscale"])
    plan = Plan(
        app_path=path,
        name=check_name("worker", options["name"] or f"{app.name}.{socket.gethostname()}:{os.getpid()}"),
        concurrency=low or _children(options["concurrency"]),
        max_concurrency=high,
        async_slots=options["async_slots"],
        threads=options["threads"] or 10,
        max_tasks=options["max_tasks_per_child"] or 0,
        max_memory=(options["max_memory_per_child"] or 0) << 20,
        grace=options["grace"],
        drain=options["drain"],
        start_method=options["start_method"] or app.settings.start_method,
        level=loglevel,
        tasks={task.name: task.fingerprint for task in app.tasks.values()},
        timed=any(task.time_limit for task in app.tasks.values()),
        announced=None,
        shown={task.name: task.shown for task in app.tasks.values() if task.shown},
        version=version("taskq-redis"),
        main=lanes["main"],
        loop=lanes["loop"],
        thread=lanes["thread"],
    )
    if not plan.sets:
        raise ConfigError(f"{path} has no tasks, so there is nothing to run; is the module with the tasks imported?")
    return plan


def _check_queues(app: TaskQ, plan: Plan, broker: Broker) -> None:
    """Say which of -Q no task has: there comes only what is sent with ``queue=``.

    Raises:
        ConfigError: One to which nothing was ever sent either, and that looks like a slip.
    """
    from taskq.spelling import guess, is_typo
    from taskq.views.names import known_names

    own = {task.queue for task in app.tasks.values()}
    strange = [name for name in plan.queues if name not in own]
    if not strange:
        return
    used = broker.perform(known_names([app.client.partitions])).queues
    for name in strange:
        text = f"no task of app {app.name} has queue {name}"
        if name in used:
            click.echo(f"taskq: {text}: here comes what is sent with queue={name!r}", err=True)
        elif is_typo(name, own):
            raise ConfigError(f"-Q {name}: {text}, and nothing was ever sent to it{guess(name, own)}")
        else:
            click.echo(f"taskq: warning: {text}, and nothing was ever sent to it{guess(name, own)}", err=True)


def _children(text: str) -> int:
    if text == "auto":
        return cpus()
    if not (text.isdigit() and int(text) >= 1):
        raise ConfigError(f"--concurrency {text!r}: give a number of child processes from 1, or auto")
    return int(text)


def _check_weights(app: TaskQ, queues: Iterable[str], what: str) -> None:
    """Refuse an order of queues that no server could keep: each partition keeps its own."""
    found = sorted({app.client.partitions.of(queue).partition for queue in queues})
    if len(found) > 1:
        raise ConfigError(
            f"{what}: these queues are in the partitions {', '.join(map(str, found))} of app {app.name}, and an order "
            "holds within a partition: name queues of one, or start a worker for each"
        )


def _scale(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 0
    low, comma, high = text.partition(",")
    if not (comma and low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high)):
        raise ConfigError(f"--autoscale {text!r}: give the least and the most children, for example 2,8")
    return int(low), int(high)


def run_and_reload() -> NoReturn:
    """Run the same command without ``--reload``, again whenever a Python file changes; never returns."""
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError:
        click.echo(f"taskq: --reload needs watchfiles: {how_to_install('reload')}", err=True)
        sys.exit(USAGE)
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    command_line = shlex.join([sys.executable, "-m", "taskq", *arguments])
    run_process(".", target=command_line, target_type="command", watch_filter=PythonFilter(), sigint_timeout=30)
    sys.exit(0)


def cpus() -> int:
    """Return how many CPUs this process may use, by its affinity and its cgroup's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = open("/sys/fs/cgroup/cpu.max").read().split()
        return max(1, min(available, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return available


def banner(app: TaskQ, where: str, plan: Plan) -> str:
    """Say what the worker is about to do."""
    children = f"{plan.concurrency} to " * bool(plan.max_concurrency)
    children += count(plan.max_concurrency or plan.concurrency, "process", "processes")
    if plan.start_method != "fork":
        children += f" by {plan.start_method}"
    each = [count(plan.async_slots, "coroutine")] if plan.loop.id else []
    each += [count(plan.threads, "thread")] if plan.thread.id else []
    tasks = sorted(name for name in plan.tasks if app.tasks[name].queue in plan.queues)
    lines = [
        f"taskq worker {plan.name}",
        f"  app          {app.name}",
        f"  broker       {where}",
        f"  concurrency  {children}{', each with ' + ' and '.join(each) if each else ''}",
        f"  queues       {', '.join(sorted(plan.queues))}",
        f"  tasks        {', '.join(tasks) or 'whatever is sent there'}",
    ]
    return "\n".join(lines)
