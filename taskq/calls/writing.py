"""Writing the message of a call with options: to another queue, later, with a priority or retries of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from taskq import celery_names
from taskq.calls.result import Origin
from taskq.calls.sending import Call, as_list, as_map, expiry_words, when_words
from taskq.celery_names import instead
from taskq.config import check_name
from taskq.errors import ConfigError, MessageTooLarge
from taskq.message import codec
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.message.ids import id_from_text, id_in, new_id
from taskq.message.letters import OPTION_WARN
from taskq.tasks.definition import Definition
from taskq.tasks.keys import NO_ARGUMENTS, Arguments
from taskq.tasks.options import CALL_OPTIONS, CALL_RETRIES, CallOptions

if TYPE_CHECKING:
    from taskq.calls.client import Client


class Writer(Definition):
    """What writes the calls of a task."""

    def __init__(self, function: Callable[..., Any], client: Client, **options: Any) -> None:
        """Work out what every call has; the options are those of `Definition`."""
        super().__init__(function, **options)
        self.client = client
        self._varies = self.flow.depends_on_call
        self._head = self._head_of(self.queue, None, (), {}) if not self._varies else b""
        self._words = expiry_words(self.expires) + self.flow.words
        self._check = self.check
        self.origin = Origin(client, self.name, self.read_result, self.ignore_result)
        self._max_bytes = client.settings.max_message_bytes
        self._new_id = self._id_source(self.queue)

    def write(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Call:
        """Do what `Task.prepare_call` does, past the middleware around sending."""
        positional, named = as_list("args", args), as_map("kwargs", kwargs)
        self._check(*positional, **named)
        if unknown := sorted(options.keys() - set(CALL_OPTIONS)):
            hint = instead(unknown[0], celery_names.CALL_OPTIONS, CALL_OPTIONS)
            raise ConfigError(f"apply_async has no option {', '.join(unknown)}{hint}")
        queue, priority, eta = options.get("queue"), options.get("priority"), options.get("eta")
        words = (
            when_words(options.get("countdown"), eta)
            + expiry_words(options.get("expires", self.expires))
            + self.flow.words
        )
        head = self._head
        elsewhere = queue is not None and queue != self.queue
        if (task_id := options.get("task_id")) is not None:
            raw_id = id_from_text(check_name("task_id", task_id))
        else:
            raw_id = self._id_source(check_name("queue", queue))() if elsewhere else self._new_id()
        if elsewhere or self._varies or priority is not None:
            head = self._head_of(
                check_name("queue", self.queue if queue is None else queue), priority, positional, named
            )
        if elsewhere:
            self._check_partition(str(queue))
            words += OPTION_WARN
        more, origin = self._headers(options)
        value = head + encode_envelope(raw_id, more, self.pack_call(positional, named))
        if len(value) > self._max_bytes:
            self._too_large(len(value))
        return Call((raw_id, value, words), origin, self.flow)

    def _headers(self, options: CallOptions) -> tuple[dict[str, Any], Origin]:
        """Return what the envelope says of a call besides its arguments, and what its handle knows."""
        more: dict[str, Any] = {"sig": self.fingerprint}
        origin = self.origin
        ignored = options.get("ignore_result")
        if ignored is not None and ignored != self.ignore_result:
            more["ignore"] = ignored
            origin = origin._replace(ignored=ignored)
        if self.flow.debounce:
            more["debounced"] = True
        if headers := options.get("headers"):
            more["user"] = codec.pack(as_map("headers", headers), "headers")
        if (eta := options.get("eta")) is not None:
            more["eta"] = eta.timestamp() * 1000
        if retry := {name: value for name, value in options.items() if name in CALL_RETRIES}:
            self.policy.with_call_options(retry)  # refuses values that cannot work
            more["retry"] = retry
        return more, origin

    def _head_of(self, queue: str, priority: int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        arguments = Arguments(self.named(*args, **kwargs)) if self._varies else NO_ARGUMENTS
        more = self.flow.fields(self.name, arguments, priority)
        return encode_head(self.name, queue, self.at_most_once, more)

    def _id_source(self, queue: str) -> Callable[[], bytes]:
        """Return what makes ids for calls that go to a queue: they name its partition."""
        if self.client.settings.partitions == 1:
            return new_id
        return partial(id_in, self.client.partitions.of(queue).partition)

    def _check_partition(self, queue: str) -> None:
        """Refuse a queue where the task's limits and locks would be others: each partition counts for itself."""
        if self.flow.holds_together and (apart := self._apart(queue)):
            raise ConfigError(
                f"a call of {self.name} cannot go to queue={queue!r}: {apart}, and its limits and unique work hold "
                "within a partition. Use a queue in the same partition (taskq queues shows it), or a task without them"
            )

    def check_move(self, queue: str) -> None:
        """Refuse a queue of another partition: a message moves in one step, and none reaches two partitions."""
        super().check_move(queue)
        if apart := self._apart(queue):
            raise ConfigError(
                f"{self.name} cannot be retried in queue={queue!r}: {apart}. Use a queue in the same partition "
                "(taskq queues shows it), or send a new call"
            )

    def _apart(self, queue: str) -> str:
        """Say in which partitions a queue and the task's own are; nothing if it is the same one."""
        if self.client.settings.partitions == 1:
            return ""
        there, here = self.client.partitions.of(queue), self.client.partitions.of(self.queue)
        if there == here:
            return ""
        where = f"its own queue {self.queue!r} in partition {here.partition}"
        return f"that is in partition {there.partition} of the app, {where}"

    def _too_large(self, size: int) -> NoReturn:
        raise MessageTooLarge(
            f"a call of {self.name} has {size:,} bytes, more than max_message_bytes={self._max_bytes}; "
            "keep the data elsewhere and pass its key"
        )
