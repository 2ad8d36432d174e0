"""What can be asked of the server: one module for each kind of caller, one function for each request.

All of it is pure: a function makes a `taskq.broker.call.Command`, which a connection executes.
"""
