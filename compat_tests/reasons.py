"""Tests that may fail without making a run bad, and why: facts about the tests.

Keys are globs over test ids.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# What stock fails now and then, on a quiet machine too.
ALLOWED = {
    "multiprocessing.WithThreadsTestPool.test_terminate": (
        "up to 3.11 it ends a thread pool that is still starting, which may take minutes"
    ),
}

# What a mechanism cannot do by its nature: the test, the contexts that can, and the fact.
BY_NATURE = {
    "multiprocessing.*.test_*fd_transfer": (
        ("mpipc-shm", "mpipc-signal", "mpipc-unix"),
        "it sends a descriptor through a connection, which only Unix stream sockets carry",
    ),
}


def cause(test: str, context: str) -> str:
    """Return why the test may fail on a context, or nothing."""
    for glob, reason in ALLOWED.items():
        if fnmatchcase(test, glob):
            return reason
    for glob, (able, reason) in BY_NATURE.items():
        if fnmatchcase(test, glob) and context.startswith("mpipc-") and context not in able:
            return reason
    return ""
