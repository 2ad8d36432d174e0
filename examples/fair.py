# Run it:  taskq worker -A fair       and in another terminal, in the same folder:  python fair.py
"""A tenant with a lot of work does not hold up the others: each gets its turn."""

import time

from taskq import TaskQ

app = TaskQ("fair")


@app.task(fair_by="tenant", max_concurrency=1)
def render(tenant: str, page: int) -> float:
    return time.monotonic()


if __name__ == "__main__":
    app.pause(render)
    calls = [("large", page) for page in range(1000)] + [("small", page) for page in range(3)]
    results = render.delay_many(calls)
    app.resume(render)
    last_of_small = results[-1].get(timeout=30)
    before = [result for result in results[:1000] if result.get(timeout=30) < last_of_small]
    print(f"of the large tenant's 1000 pages, {len(before)} came before the small one's last")

# It prints:
# of the large tenant's 1000 pages, 3 came before the small one's last
