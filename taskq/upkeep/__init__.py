"""Work that needs no user code: bringing back what lost workers held, and mending damage that no script does.

Each part is a protocol (`taskq.broker.protocol`), driven by a worker's parent beside its work and by ``taskq reaper``.
"""
