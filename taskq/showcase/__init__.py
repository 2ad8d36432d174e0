"""Shows that run by themselves: the mail-out of ``taskq demo``, and the one that ``taskq chaos`` breaks all the time.

Everything in them is real: the server, the workers and their processes, SMTP over a socket, the signals. The mail
server keeps its own books of what it was offered and what it took, so what is shown at the end does not rest on what
taskq says of itself.

Needs the extra ``demo`` (rich and aiosmtpd).
"""
