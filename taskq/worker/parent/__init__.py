"""A worker's parent: starts children, replaces those that die, renews their leases, does what needs no task's code."""
