"""What can be asked of the server: a module for each of those who ask, a function for each thing.

All of it is pure: a function makes a `taskq.broker.call.Command`, which a connection executes.
"""
