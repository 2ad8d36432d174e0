"""Connections: the only part that imports redis, or knows how a server is reached and whether it is a suitable one."""
