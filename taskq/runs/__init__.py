"""One run: from a delivery to its outcome, wherever it happens.

Decides and does no I/O: the lanes of a worker, and `Task.apply`, say where a function runs. Imports `tasks` and below.
"""
