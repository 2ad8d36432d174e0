"""A mail-out: one task, which sends one mail.

`taskq demo` runs it against a mail server of its own and kills a worker half-way, `taskq chaos` breaks it for a minute.
By hand, in this folder:

    python -m aiosmtpd -n -l 127.0.0.1:8025     # a mail server that shows what it gets
    taskq worker -A tasks                       # in another terminal
    python tasks.py                             # in a third
"""

import csv
import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

from tenacity import retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from taskq import Context, TaskQ

app = TaskQ(os.environ.get("MAILER_APP", "mailer"))
host, _, port = os.environ.get("MAILER_SMTP", "127.0.0.1:8025").partition(":")
recipients = Path(__file__).with_name("recipients.csv")


def may_pass(error: BaseException) -> bool:
    """Say whether to try again: the server was away, or it said 4xx, "not now". A 5xx is final."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code < 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code < 500
    return isinstance(error, OSError)


@app.task(
    bind=True,
    retry=retry_if_exception(may_pass),
    wait=wait_exponential(multiplier=0.5, max=60) + wait_random(0, 1),  # seconds
    stop=stop_after_attempt(10),
)
def send_email(self: Context, to: str, name: str, plan: str) -> str:
    mail = EmailMessage()
    mail["From"] = "Taskq Weekly <weekly@example.com>"
    mail["To"] = to
    mail["Subject"] = f"{name}, what is new in your {plan} plan"
    # A task may run twice, when its worker is killed just after the mail has left. The id of the call is the same
    # both times, so the receiving side can see that it is the same mail.
    mail["Message-ID"] = f"<{self.request.id}@example.com>"
    mail.set_content(f"Dear {name},\n\nthis week there is nothing to do: your {plan} plan renews itself.\n")
    greeting = f"process-{os.getpid()}.localhost"  # so that the mail server's records say which process it was
    with smtplib.SMTP(host, int(port), local_hostname=greeting, timeout=30) as server:
        server.send_message(mail)
    return mail["Message-ID"]


if __name__ == "__main__":
    with open(recipients, newline="") as file:
        calls = [(row["email"], row["name"], row["plan"]) for row in csv.DictReader(file)]
    print(f"sent {len(send_email.delay_many(calls))} calls; look at what failed with: taskq dead ls --name {app.name}")
