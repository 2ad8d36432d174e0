# Run it:  taskq worker -A unique       and in another terminal, in the same folder:  python unique.py
"""The same work is done once: while it waits or runs, after a series of calls, or once per period."""

import time

from taskq import DuplicateCall, TaskQ

app = TaskQ("unique")


@app.task(unique="until_done")
def sync(user: int) -> str:
    time.sleep(1)
    return f"synchronised {user}"


@app.task(unique="until_done", on_duplicate="raise")
def charge(order: int) -> None:
    time.sleep(1)


@app.task(debounce=1.0, unique_by="document")
def index(document: str, text: str) -> str:
    return f"{document}: {text}"


@app.task(throttle=60.0)
def refresh() -> float:
    return time.monotonic()


if __name__ == "__main__":
    first, second, other = sync.delay(1), sync.delay(1), sync.delay(2)
    print(first.id == second.id, first.id == other.id, second.get(timeout=10))

    charge.delay(17)
    try:
        charge.delay(17)
    except DuplicateCall:
        print("17 is being charged")

    typed = [index.delay("letter", text) for text in ("D", "De", "Dear")]
    print({result.get(timeout=10) for result in typed})

    print(len({refresh.delay().get(timeout=10) for _ in range(5)}), "refresh")

# It prints:
# True False synchronised 1
# 17 is being charged
# {'letter: Dear'}
# 1 refresh
