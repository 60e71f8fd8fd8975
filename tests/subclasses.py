"""Process classes of the context under test, at module level as users write them.

Spawned children import this to find their class, before they know of any context.
"""

from __future__ import annotations

import multiprocessing
import os

# Set by conftest.py, inherited by children.
FAMILY = os.environ["MPIPC_TEST_CONTEXT"]

if FAMILY == "stock":
    fork, spawn, forkserver = map(multiprocessing.get_context, ("fork", "spawn", "forkserver"))
else:
    import mpipc  # noqa: F401  (registers the names)

    fork, spawn, forkserver = (
        multiprocessing.get_context(f"{FAMILY}-{method}")
        for method in ("fork", "spawn", "forkserver")
    )


class Doubling:
    """Sends the double of a value; mixed into the Process of each start method."""

    def __init__(self, writer, value):
        super().__init__()
        self.writer, self.value = writer, value

    def run(self):
        self.writer.send(2 * self.value)


class ForkDoubler(Doubling, fork.Process):
    pass


class SpawnDoubler(Doubling, spawn.Process):
    pass


class ForkServerDoubler(Doubling, forkserver.Process):
    pass


OF = {"fork": ForkDoubler, "spawn": SpawnDoubler, "forkserver": ForkServerDoubler}
