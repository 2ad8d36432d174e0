# Run it:  taskq worker -A priority       and in another terminal, in the same folder:  python priority.py
"""Urgent orders overtake the others that wait."""

import time

from taskq import TaskQ

app = TaskQ("priority")


@app.task(max_concurrency=1)
def pack(order: str) -> float:
    return time.monotonic()


if __name__ == "__main__":
    app.pause(pack, "the shelf is being filled")
    results = {
        "first": pack.delay("first"),
        "second": pack.delay("second"),
        "some day": pack.apply_async(["some day"], priority=-10),
        "express": pack.apply_async(["express"], priority=10),
        "express too": pack.apply_async(["express too"], priority=10),
    }
    app.resume(pack)
    began = {order: result.get(timeout=10) for order, result in results.items()}
    print(", ".join(sorted(began, key=began.__getitem__)))

# It prints:
# express, express too, first, second, some day
