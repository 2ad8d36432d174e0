"""What is declared: what a task is, which calls it takes, when it is retried, what limits it.

Pure values and decisions, without I/O. Imports `message`, and of `broker` nothing but values.
"""
