# Run it:  taskq worker -A fleet_limits       and in another terminal, in the same folder:  python fleet_limits.py
"""A rate for the whole fleet, one run at a time for each user, and a service that asks for a pause."""

import os
import tempfile
import time
from itertools import pairwise

from taskq import RateLimited, TaskQ

app = TaskQ("fleet-limits")


@app.task(rate="20/s")
def geocode(address: str) -> str:
    return address.title()


@app.task(max_concurrency=1, key="user")
def export(user: str, table: str) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(0.1)
    return began, time.monotonic()


@app.task
def ask(question: str, asked: str) -> str:
    if not os.path.exists(asked):
        open(asked, "w").close()
        raise RateLimited(retry_after=0.5)  # as the service said; nobody asks it until then
    return "42"


if __name__ == "__main__":
    began = time.monotonic()
    results = geocode.delay_many(f"{n} High Street" for n in range(21))
    print(results[-1].get(timeout=10), "| at least a second:", time.monotonic() - began > 0.95)

    runs = sorted(result.get(timeout=10) for result in export.delay_many(("ann", table) for table in "abcd"))
    print("two at once for ann:", any(later[0] < earlier[1] for earlier, later in pairwise(runs)))

    with tempfile.TemporaryDirectory() as folder:
        print(ask.delay("six by nine?", os.path.join(folder, "asked")).get(timeout=10))

# It prints:
# 20 High Street | at least a second: True
# two at once for ann: False
# 42
