"""What is declared: what a task is, what can be sent to it, when it is tried again, what limits it.

Pure values and decisions, without I/O. Imports `message`, and of `broker` nothing but values.
"""
