"""One call, from user code: sending it, waiting for it, reading what became of it.

Imports `runs` (for `Task.apply`), `views`, `steering` and everything below them; never a worker.
"""
