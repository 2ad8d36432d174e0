"""What travels: envelopes, and the bytes that values become.

Nothing here knows what surrounds a message: no server, no task, no I/O. Imports `config` and `errors` only.
"""
