"""What travels: envelopes, and the bytes that values become.

A message is told apart from everything around it here: no server, no task, no I/O. Imports `config` and `errors` only.
"""
