# Run it:  taskq worker -A hello       and in another terminal, in the same folder:  python hello.py
"""The smallest app: a task, a call, its result."""

from taskq import TaskQ

app = TaskQ("hello")


@app.task
def add(a: int, b: int) -> int:
    return a + b


if __name__ == "__main__":
    result = add.delay(2, b=3)
    print(result.get(timeout=10))

# It prints:
# 5
