"""Tests that may fail without making a run bad, and why: facts about the tests.

Keys are globs over test ids.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# What stock fails now and then, on a quiet machine too.
FLAKY = {
    "multiprocessing.WithThreadsTestPool.test_terminate": (
        "up to 3.11 it ends a thread pool that is still starting, which may take minutes"
    ),
}

# What ends otherwise on our contexts.
DIFFERENT = {
    "concurrent_futures.*test_python_finalization_error": (
        "lets the start of the call queue's feeder thread fail and expects that to break the "
        "executor; our queue has no feeder thread, so the executor goes on, and what arrives is "
        "the TypeError of the test's own task, mul() of one tuple"
    ),
}


def cause(test: str) -> str:
    """Return why the test may fail, or nothing."""
    for glob, reason in {**FLAKY, **DIFFERENT}.items():
        if fnmatchcase(test, glob):
            return reason
    return ""
