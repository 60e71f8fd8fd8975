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


def cause(test: str) -> str:
    """Return why the test may fail, or nothing."""
    for glob, reason in ALLOWED.items():
        if fnmatchcase(test, glob):
            return reason
    return ""
