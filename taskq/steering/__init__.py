"""What operators do: each operation written once, as a protocol that a thread or an event loop drives.

The methods of `TaskQ` and the commands of ``taskq`` only pass on what they are asked. Imports `views` and below.
"""
