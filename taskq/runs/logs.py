"""What a worker logs of its tasks, and which task it was on every record that is logged inside one.

Fields are on the records and not only in the text: ``record.taskq`` is a dict, and ``record.task_id`` and
``record.task_name`` are for format strings. Whether a level is on is asked once a batch.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

from taskq.message.ids import id_to_text
from taskq.message.letters import DISCARDED
from taskq.message.outcome import Again, Dead, Ended, Outcome, SlowDown
from taskq.runs.delivery import Delivery, current

log = logging.getLogger("taskq.task")


def _writable(record: logging.LogRecord) -> bool:
    """Make a traceback writable that no file takes (half a surrogate pair in an error's text)."""
    if record.exc_info:
        text = logging.Formatter().formatException(record.exc_info)
        if (plain := text.encode("utf-8", "backslashreplace").decode()) != text:
            record.exc_text = plain
    return True


log.addFilter(_writable)


class TaskFilter(logging.Filter):
    """Puts the running call on every record that passes, to be added to a handler.

    The record gets ``task_id`` and ``task_name``, empty outside of tasks, and inside of one ``taskq``, a dict with
    ``id`` and ``task``. What a task logs in threads of its own is outside, unless they run in a copy of its context.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, with the fields."""
        if not hasattr(record, "task_id"):
            delivery = current.get()
            if delivery is None:
                record.task_id = record.task_name = ""
            else:
                vars(record).update(_fields(delivery))
        return True


def _fields(delivery: Delivery, **more: Any) -> dict[str, Any]:
    """Return the attributes of a record that is about a call."""
    raw_id, task = id_to_text(delivery.id), delivery.task.name if delivery.route else ""
    return {"task_id": raw_id, "task_name": task, "taskq": {"id": raw_id, "task": task, **more}}


def tell(level: int, delivery: Delivery, text: str, *args: Any, error: Any = None, **more: Any) -> None:
    """Log something about a call; ``error`` is what `logging` takes for ``exc_info``, ``more`` goes into ``taskq``."""
    try:
        if log.isEnabledFor(level):
            log.log(level, text, *args, exc_info=error, extra=_fields(delivery, **more), stacklevel=2)
    except Exception:  # of a filter or handler of the user's: the task has nothing to do with it
        traceback.print_exc()


def started(delivery: Delivery) -> None:
    """Say that a task starts."""
    if log.isEnabledFor(logging.DEBUG):
        tell(logging.DEBUG, delivery, "task %s[%s] starts", delivery.task.name, id_to_text(delivery.id))


def ended(delivery: Delivery, outcome: Outcome, seconds: float) -> None:
    """Say how a task that ran has ended, and after how many seconds."""
    if not log.isEnabledFor(logging.INFO):
        return
    name, raw_id, word = delivery.task.name, id_to_text(delivery.id), _word(outcome)
    tell(
        logging.INFO, delivery, "task %s[%s] %s in %.3f s", name, raw_id, word, seconds,
        outcome=word, seconds=seconds, queue=delivery.route.queue, worker=delivery.route.worker,
    )  # fmt: skip


def _word(outcome: Outcome) -> str:
    """Return one word for an outcome: done, failed, revoked, retried, limited, returned, or why it was given up."""
    match outcome:
        case tuple():
            return "done"
        case Dead(reason=word) | Again(counter=word):
            return word
        case Ended(result=result, counter=word):
            return result[len(DISCARDED) :].decode(errors="replace") if result.startswith(DISCARDED) else word
        case SlowDown():
            return "limited"
        case _:
            return "returned"
