"""The read model: the state of a server, as typed values, without any text for the terminal.

The command line, results and anything else that shows something read it here. Imports `tasks` and below.
"""
