# Run it:  taskq worker -A retry       and in another terminal, in the same folder:  python retry.py
"""A task that fails twice, is retried, and then works; and one that never works."""

from taskq import Context, TaskError, TaskQ

app = TaskQ("retry")


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=0.1, max_retries=3)
def fetch(self: Context, works_at: int) -> str:
    if self.request.retries < works_at:
        raise ConnectionError(f"no luck in run {self.request.retries + 1}")
    return f"worked in run {self.request.retries + 1}"


if __name__ == "__main__":
    print(fetch.delay(works_at=2).get(timeout=10))
    hopeless = fetch.delay(works_at=99)
    try:
        hopeless.get(timeout=10)
    except TaskError as error:  # also a ConnectionError, as in the worker
        print(f"{type(error).__name__}: {error}")
    # It is kept as a dead letter; see `taskq dead ls --name retry`.

# It prints:
# worked in run 3
# ConnectionError: no luck in run 4
