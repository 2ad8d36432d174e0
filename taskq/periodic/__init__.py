"""Calls that are sent at set times: schedules, and the entries that say what is sent.

Pure values and decisions; `worker.parent.announcing` puts them on the server, the reaper takes what is due.
"""
