"""A producer that goes on calling the task, whatever happens to its server."""

from __future__ import annotations

import threading
import time

from taskq.errors import BrokerUnavailable, DuplicateTaskId, EnqueueUncertain
from taskq.showcase import example
from taskq.showcase.evidence import Call
from taskq.showcase.example import Recipient, SendEmail
from taskq.showcase.mailserver import MailServer

#: The second queue: the mails to business customers.
BUSINESS = "business"
#: Calls that may be on their way at once.
_BACKLOG = 100


class Producer(threading.Thread):
    """Calls the task all the time, as fast as mails arrive.

    Attributes:
        calls: What taskq accepted, by id.
        error: What ended it before it was told to end.
    """

    def __init__(self, send_email: SendEmail, mail_server: MailServer) -> None:
        """Prepare to call ``send_email``."""
        super().__init__(name="producer", daemon=True)
        self.calls: dict[str, Call] = {}
        self.error: Exception | None = None
        self._send_email = send_email
        self._mail_server = mail_server
        self._enough = threading.Event()

    def run(self) -> None:
        """Call until told to stop."""
        try:
            for recipient in example.recipients():
                while len(self.calls) - len(self._mail_server.accepted) >= _BACKLOG and not self._enough.is_set():
                    time.sleep(0.005)
                if self._enough.is_set():
                    return
                self._call(recipient)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Call no more; returns when the last call has been accepted."""
        self._enough.set()
        self.join()

    def _call(self, recipient: Recipient) -> None:
        """Call until it is known that the server has it; the id makes a repeat safe."""
        args = recipient.email, recipient.name, recipient.plan
        queue = BUSINESS if recipient.plan == "business" else self._send_email.queue
        began, task_id = time.monotonic(), None
        while True:
            try:
                if queue is self._send_email.queue and task_id is None:
                    task_id = self._send_email.delay(*args).id
                else:
                    task_id = self._send_email.apply_async(args, queue=queue, task_id=task_id).id
            except BrokerUnavailable:
                continue
            except EnqueueUncertain as error:
                task_id = error.task_ids[0]
                continue
            except DuplicateTaskId:  # the call that was uncertain
                pass
            assert task_id is not None
            self.calls[task_id] = Call(recipient.email, queue, began)
            return
