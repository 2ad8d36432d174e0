"""What nobody's code is needed for: bringing back what lost workers held, and mending what no script would do.

Each part is a protocol (`taskq.broker.protocol`), driven by a worker's parent beside its work and by ``taskq reaper``.
"""
