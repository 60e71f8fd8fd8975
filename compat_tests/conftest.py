"""The front end for pytest, also with pytest-xdist: each test of CPython's is an item.

pytest compat_tests --context mpipc-shm --start-method fork -n 2
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Whatever import mode pytest uses.
sys.path.insert(0, str(Path(__file__).parent))

from harness import Result, Zygote
from suites import METHODS, PACKAGES, SUITES

ZYGOTES = pytest.StashKey[dict[str, Zygote]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--context", default="mpipc-shm", help="without its start method; 'stock' is Python's own"
    )
    parser.addoption(
        "--start-method", action="append", choices=METHODS, help="only this one; may be repeated"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ZYGOTES] = {}


def pytest_unconfigure(config: pytest.Config) -> None:
    for zygote in config.stash[ZYGOTES].values():
        zygote.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    # The suites stand for all tests in them.
    if file_path == Path(__file__).with_name("suites.py"):
        return Suites.from_parent(parent, path=file_path)
    return None


class Suites(pytest.File):
    """CPython's tests, for each start method."""

    def collect(self) -> Iterator[pytest.Item]:
        for method in self.config.getoption("start_method") or METHODS:
            zygote = self._zygote(method)
            for name in zygote.missing:
                self.warn(pytest.PytestWarning(f"no {SUITES[name].needs} ({PACKAGES})"))
            for test in zygote.tests:
                yield Test.from_parent(self, name=f"{test}[{method}]", zygote=zygote, test=test)

    def _zygote(self, method: str) -> Zygote:
        zygotes = self.config.stash[ZYGOTES]
        if method not in zygotes:
            zygotes[method] = Zygote(self.config.getoption("context"), method, SUITES)
        return zygotes[method]


class Test(pytest.Item):
    """One of them. It runs in a process of its own."""

    def __init__(self, *, zygote: Zygote, test: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._zygote = zygote
        self._test = test

    def runtest(self) -> None:
        result = self._zygote.run(self._test)
        if result.outcome == "skipped":
            pytest.skip(result.reason)
        if result.bad and result.excuse:
            pytest.xfail(result.excuse)
        if result.bad:
            raise Bad(result)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        if isinstance(excinfo.value, Bad):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class Bad(Exception):
    """A test failed, in the words of its own process."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.outcome} after {result.seconds} s\n{result.details}")
