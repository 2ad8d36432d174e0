# Run it:  python crash_and_recover.py       (it starts its own worker)
"""If the process of a task is killed half-way, the task runs again in another process, and nothing is lost."""

import os
import signal
import subprocess
import sys
import tempfile
import time

from taskq import TaskQ

app = TaskQ("crash")


@app.task
def work(seconds: float, pid_file: str) -> str:
    with open(pid_file, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    with open(pid_file) as file:
        return f"ended in run {len(file.readlines())}"


def started(pid_file: str) -> int:
    """Wait until the task runs; return the process it runs in."""
    while not os.path.exists(pid_file) or not (text := open(pid_file).read()).endswith("\n"):
        time.sleep(0.01)
    return int(text)


if __name__ == "__main__":
    worker = subprocess.Popen([sys.executable, "-m", "taskq", "worker", "-A", "crash_and_recover", "-l", "critical"])
    with tempfile.TemporaryDirectory() as folder:
        pid_file = os.path.join(folder, "pids")
        result = work.delay(1, pid_file)
        os.kill(started(pid_file), signal.SIGKILL)
        print("killed the process in the middle of the task")
        print(result.get(timeout=30))
    worker.terminate()
    worker.wait()

# It prints, after the worker's banner:
# killed the process in the middle of the task
# ended in run 2
