"""The suites that are run, and how unittest finds their tests."""

from __future__ import annotations

import os
import unittest
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module

METHODS = ("fork", "spawn", "forkserver")

# Says to this process and its children which start method the tests are for.
METHOD_VARIABLE = "MPIPC_COMPAT_START_METHOD"

# Resources of `python -m test -u` that the suites ask for; none of them is the network.
RESOURCES = ("cpu", "subprocess", "walltime")

# Where distributions keep what python.org installs with Python.
PACKAGES = "Debian, Ubuntu: libpython3.X-testsuite; Fedora: python3-test"


@dataclass(frozen=True)
class Suite:
    """Some of CPython's tests.

    `needs` is the module of CPython that has them, `module` the one that unittest loads.
    """

    name: str
    needs: str
    module: str


SUITES = {
    suite.name: suite
    for suite in (
        # CPython makes these classes once for each start method, and so do we.
        Suite("multiprocessing", "test._test_multiprocessing", "multiprocessing_tests"),
        Suite("concurrent_futures", "test.test_concurrent_futures", "test.test_concurrent_futures"),
    )
}


def load(names: Iterable[str], method: str) -> tuple[dict[str, unittest.TestCase], list[str]]:
    """Return the tests of the suites, by id, and the suites that this Python lacks."""
    os.environ[METHOD_VARIABLE] = method
    cases: dict[str, unittest.TestCase] = {}
    missing = []
    for suite in map(SUITES.__getitem__, names):
        try:
            _configure()
            import_module(suite.needs)
        except ModuleNotFoundError as error:
            if error.name not in ("test", "test.support", suite.needs):
                raise
            missing.append(suite.name)
            continue
        for case in _flat(unittest.defaultTestLoader.loadTestsFromName(suite.module)):
            # The executors of another start method belong to that one's run.
            if getattr(case, "ctx", method) == method:
                cases[suite.name + case.id().removeprefix(suite.module)] = case
    return cases, missing


def _configure() -> None:
    """Set what `python -m test` sets. Decorators ask for it while the suites are imported."""
    from test import support  # type: ignore[import-not-found]

    support.verbose = False
    support.use_resources = RESOURCES


def _flat(tests: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        elif type(test).__module__ == "unittest.loader":
            raise ImportError(f"{test.id()} cannot be loaded: {getattr(test, '_exception', '')}")
        else:
            yield test
