"""What Celery calls something that taskq does otherwise or not at all, for those who try its names here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taskq.spelling import nearest

#: Where the two are compared, name by name.
PAGE = "docs/how-to/migrate-from-celery.md"

_NO_CANVAS = "taskq has no signatures, groups, chains or chords"
_SIGNATURE = (
    f"{_NO_CANVAS}: send with delay(), prepare calls for app.enqueue_many() with call(), "
    "or let a task send the next one"
)
_MANY = "send many calls with delay_many([...])"
_BOUND = "it is of the first parameter of a task with bind=True (self); elsewhere use taskq.current_request()"
_SETTINGS = (
    'settings are arguments, TaskQ("shop", lease=30), variables, TASKQ_LEASE=30, or [tool.taskq] in pyproject.toml'
)
_NO_EVENTS = "there are no events or remote control: see the log, `taskq queues`, `taskq why` and `taskq dead`"
_HOOKS = (
    'hooks are functions: @app.on("failure"), @app.on("child_init") and so on, or @app.task(on_failure=...); '
    'what is around a run or a call is middleware: @app.around("run"), @app.around("enqueue")'
)
_BY_COMMAND = "use app.pause(), resume(), revoke() and revoke_all(), or `taskq pause`, `resume`, `revoke` and `limit`"
_PERIODIC = 'periodic entries are declared: app.periodic("name", crontab(...) or every(30), task, args, kwargs)'
_SEND_BY_NAME = "calls are checked against the task: import it, or declare its signature with @app.task(name=...)"
_ROUTES = "a queue is given by @app.task(queue=...) or apply_async(queue=...); there are no exchanges and routes"
_NO_STATES = "states cannot be added; keep the progress where you keep your data, by self.request.id"
_MESSAGES = "messages are msgpack, see the page on arguments; there is nothing to choose"
_LATE = "every message is settled after its task has ended; for the opposite there is at_most_once=True"

TASK = {
    **dict.fromkeys(("s", "si", "signature", "subtask", "subtask_from_request", "replace", "add_to_chord"), _SIGNATURE),
    **dict.fromkeys(("map", "starmap", "chunks"), _MANY),
    **dict.fromkeys(("retry", "request", "push_request", "pop_request"), _BOUND),
    **dict.fromkeys(("update_state", "send_event"), _NO_STATES),
    **dict.fromkeys(("on_failure", "on_success", "on_retry", "before_start", "after_return"), _HOOKS),
    **dict.fromkeys(("acks_late", "reject_on_worker_lost"), _LATE),
    "AsyncResult": "use app.AsyncResult(id)",
    "run": "call the task, or task.function",
    "app": "import your TaskQ",
    "backend": "results are on the same server",
    "rate_limit": "declare @app.task(rate=...)",
}
CONTEXT = {**TASK, **dict.fromkeys(("delay", "apply_async", "call"), "import the task, and call it by its own name")}
APP = {
    **dict.fromkeys(("conf", "config_from_object", "config_from_envvar", "config_from_cmdline"), _SETTINGS),
    **dict.fromkeys(("setup_security", "add_defaults", "user_options", "steps"), _SETTINGS),
    **dict.fromkeys(("signature", "canvas", "GroupResult", "ResultSet"), _SIGNATURE),
    **dict.fromkeys(("add_periodic_task", "on_after_configure", "on_after_finalize"), _PERIODIC),
    **dict.fromkeys(("events", "log", "on_configure", "select_queues"), _NO_EVENTS),
    **dict.fromkeys(("amqp", "connection", "connection_for_write", "producer_pool", "pool", "backend"), _ROUTES),
    **dict.fromkeys(("worker_main", "start", "Worker", "Beat"), "start `taskq worker -A module`; there is no beat"),
    **dict.fromkeys(("current_task", "current_worker_task"), "use taskq.current_request()"),
    "control": _BY_COMMAND,
    "send_task": _SEND_BY_NAME,
    "autodiscover_tasks": "import the modules with your tasks where the app is made, or name them with -A",
    "Task": "there are no task classes: use plain functions",
    "register_task": "use app.task(function)",
    "main": "use app.name",
}
RESULT = {
    **dict.fromkeys(("children", "parent", "collect", "iterdeps", "graph", "then", "join", "results"), _NO_CANVAS),
    **dict.fromkeys(("wait", "maybe_throw", "throw", "maybe_reraise"), "use get(timeout=...)"),
    "info": "use result",
    "task_id": "use id",
    "date_done": "the time is not kept",
}
MODULE = {
    **dict.fromkeys(("group", "chain", "chord", "chunks", "xmap"), _SIGNATURE),
    **dict.fromkeys(("signature", "subtask", "maybe_signature"), _SIGNATURE),
    "Celery": 'it is TaskQ here: app = TaskQ("shop", "redis://...")',
    "shared_task": "use @app.task of your app",
    "current_app": "import your TaskQ",
    "current_task": "use current_request()",
    "get_task_logger": "use logging.getLogger(__name__), with taskq.TaskFilter for the id of the task",
    "signals": _HOOKS,
}
OPTIONS = {
    **dict.fromkeys(("acks_late", "reject_on_worker_lost", "acks_on_failure_or_timeout"), _LATE),
    **dict.fromkeys(("serializer", "compression"), _MESSAGES),
    "rate_limit": 'use rate="40/m", counted for all workers together',
    "retry_kwargs": "give max_retries= and default_retry_delay= themselves",
    "base": "there are no task classes: use plain functions",
    "throws": "failures are all alike",
    "track_started": "STARTED is always told",
    "typing": "arguments are always checked",
    "routing_key": _ROUTES,
    "exchange": _ROUTES,
}
CALL_OPTIONS = {
    **dict.fromkeys(("link", "link_error", "chord", "group_id"), _SIGNATURE),
    **dict.fromkeys(("routing_key", "exchange", "producer", "connection", "publisher"), _ROUTES),
    **dict.fromkeys(("serializer", "compression"), _MESSAGES),
    **dict.fromkeys(("time_limit", "soft_time_limit", "expires_at"), "declare it: @app.task(time_limit=...)"),
    **dict.fromkeys(("retry", "retry_policy"), "sending is repeated by itself, see send_timeout"),
    "shadow": "a task has one name",
}


def instead(name: str, table: Mapping[str, str], known: Iterable[str] = ()) -> str:
    """Return what to use instead of a name that is not there: by the table, else the nearest known one."""
    return f": {table[name]}; Celery's names are explained in {PAGE}" if name in table else nearest(name, known)


def no_attribute(owner: object, name: str, table: Mapping[str, str]) -> AttributeError:
    """Make the error for an attribute that is not there."""
    hint = instead(name, table) if name in table else ""  # the interpreter itself suggests the nearest one
    text = f"{type(owner).__name__!r} object has no attribute {name!r}{hint}"
    return AttributeError(text, name=name, obj=owner)
