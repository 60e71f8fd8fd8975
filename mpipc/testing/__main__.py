"""Check contexts: ``python -m mpipc.testing mpipc-NAME``, see :mod:`mpipc.testing.conformance`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys

import mpipc  # noqa: F401  (registers the names)
from mpipc._registry import START_METHODS
from mpipc.testing.conformance import conform


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mpipc.testing",
        description="Check whether a context does what multiprocessing promises.",
    )
    parser.add_argument("contexts", nargs="+", metavar="CONTEXT", help="such as mpipc-shm or fork")
    parser.add_argument("--start-method", action="append", choices=START_METHODS)
    parser.add_argument("--match", default="*", metavar="GLOB", help="only checks that fit")
    options = parser.parse_args()
    failed = 0
    for name in options.contexts:
        for method in options.start_method or [None]:
            full = f"{name}-{method}" if method else name
            print(f"--- {full}")
            for outcome in conform(multiprocessing.get_context(full), options.match):
                print(outcome, outcome.problem, sep="\n" if outcome.problem else "", flush=True)
                failed += bool(outcome.problem)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
