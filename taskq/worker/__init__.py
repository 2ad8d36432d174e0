"""Running messages.

``supervisor`` is the parent: it starts, watches and stops ``children``, as ``signals`` tell it; ``heartbeat`` is its
thread that renews their leases and keeps the time. ``child`` is a process that runs tasks, on one or two lanes:
``main_lane`` for sync tasks in the main thread, ``loop_lane`` for coroutines on an event loop. Each lane has its own
incarnation, whose dialogue with the server is in ``session``. ``seats`` is the memory in which children tell their
parent what they are running; ``isolation`` runs a suspect alone.
"""
