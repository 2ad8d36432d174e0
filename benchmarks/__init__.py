"""What taskq costs, measured against a loop written by hand and against other task queues: ``python -m benchmarks``.

``lab`` has the server, the processes and the clocks; ``hand`` the loops to compare with; ``lone`` the life of a single
message; ``tasks`` the app that is measured; ``scenarios`` what is measured, ``figures`` the table with its targets;
``report`` prints and draws. A file in ``peers`` is one task queue: how to send no-ops to it, start its worker, and see
what remains.
"""
