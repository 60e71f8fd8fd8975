"""Run one program of `examples` by itself, for a reader at a terminal or for a command."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, Protocol, TypeVar

import mpipc  # noqa: F401  # registers its contexts

Result = TypeVar("Result", covariant=True)
Progress = Callable[[int, int], None]

# Progress is shown to people; more of it would only slow down what is measured.
SHOW_EVERY = 0.05


class Main(Protocol[Result]):
    """The main function of an example."""

    def __call__(self, ctx: BaseContext, progress: Progress | None = None) -> Result: ...


def run_alone(main: Main[Result], describe: Callable[[Result], str]) -> None:
    """Run an example as the command line of its process asks.

    Parameters
    ----------
    main : callable
        Takes a context and a callback for its progress; returns a result of plain data.
    describe : callable
        Puts the result into one line.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--context",
        default="mpipc-shm",
        metavar="NAME",
        help="a name for multiprocessing.get_context, such as fork (default: %(default)s)",
    )
    parser.add_argument("--report-to", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        ctx = multiprocessing.get_context(arguments.context)
    except ValueError as error:
        parser.error(str(error))

    if arguments.report_to is None:
        began = time.perf_counter()
        result = main(ctx, _Throttled(_show) if sys.stderr.isatty() else None)
        print(f"{describe(result)}\n{time.perf_counter() - began:.2f} s with {arguments.context}")
        return
    # Pickled by stock's connection, so that what is measured does not carry the figures.
    report: Connection[Any, Any] = Connection(arguments.report_to, readable=False)
    with report:
        progress = _Throttled(lambda done, total: report.send((done, total)))
        began = time.perf_counter()
        result = main(ctx, progress)
        report.send((time.perf_counter() - began, result, describe(result)))


class _Throttled:
    """Passes on progress, but not all of it."""

    def __init__(self, show: Progress) -> None:
        self._show = show
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + SHOW_EVERY
            self._show(done, total)


def _show(done: int, total: int) -> None:
    """Keep one line of the terminal up to date; clear it at the end."""
    text = "" if done == total else f"{done:,} of {total:,}"
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
