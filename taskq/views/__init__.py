"""The read model: what there is on a server, as typed values, without a word for the terminal.

The command line, results and whatever shows something read here. Imports `tasks` and below.
"""
