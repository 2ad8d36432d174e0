"""``python -m taskq``: the same as the ``taskq`` command."""

from taskq.cli import main

if __name__ == "__main__":
    main(prog_name="taskq")
