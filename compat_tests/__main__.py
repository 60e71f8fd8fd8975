"""Run CPython's own tests of multiprocessing and concurrent.futures on a context.

    python compat_tests --start-method spawn                   # on mpipc-shm
    python compat_tests --start-method spawn --against-stock   # compared with stock

Needs nothing but mpipc and an interpreter that has its tests. The status is 0 if all is well,
which against stock means: nothing went worse than there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from harness import LIMIT, OUTCOMES, Result, Zygote, matches, read_patterns, run_all, worse
from suites import METHODS, PACKAGES, SUITES

# Most of the time the tests sleep. With so many on two cores none of stock's fails.
JOBS = 4

SLICE = Path(__file__).with_name("slice.txt")


def main() -> int:
    options = _options()
    run = _run(options, options.context)
    if not run.results:
        print("no tests to run")
        return 2
    used = options.context == "stock" or _show_routing(run)
    if options.against_stock:
        # What passes cannot have gone worse; saved results are to be whole.
        passed = {test for test, result in run.results.items() if result.outcome == OUTCOMES[0]}
        stock = _run(options, "stock", without=set() if options.save else passed)
        lines = worse(run.results, stock.results)
        print(f"\nworse than on stock: {len(lines)}", *lines, sep="\n  ")
        return 0 if used and not lines else 1
    bad = any(result.bad and not result.excuse for result in run.results.values())
    return 0 if used and not bad else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python compat_tests", description=__doc__.partition("\n")[0]
    )
    add = parser.add_argument
    add("--context", default="mpipc-shm", help="without its start method; 'stock' is Python's own")
    add("--start-method", choices=METHODS, default="fork")
    add("--against-stock", action="store_true", help="run what does not pass on stock, and compare")
    add("--suite", action="append", choices=SUITES, help="only this one; may be repeated")
    add("--match", action="append", default=[], metavar="GLOB", help="only tests that fit; repeat")
    add("--slice", action="store_true", help=f"only the tests in {SLICE.name}")
    add("--jobs", type=int, default=JOBS, help=f"tests side by side (default: {JOBS})")
    add("--repeat", type=int, default=1, metavar="N", help="run everything N times")
    add("--limit", type=float, default=LIMIT, help=f"seconds for one test (default: {LIMIT:g})")
    add("--save", type=Path, metavar="DIR", help="write the results there, for table.py")
    return parser.parse_args()


@dataclass
class Run:
    """The results on one context; of several runs of a test, the worst."""

    results: dict[str, Result]
    offered: list[str]


def _run(options: argparse.Namespace, context: str, without: Set[str] = frozenset()) -> Run:
    """Run the tests on a context, tell about them and save the results."""
    patterns = options.match + (read_patterns(SLICE) if options.slice else []) or ["*"]
    suites = options.suite or list(SUITES)
    print(f"--- {context}, {options.start_method}")
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        zygotes = []
        for _ in range(options.jobs):
            zygotes.append(Zygote(context, options.start_method, suites))
            stack.callback(zygotes[-1].close)
        first = zygotes[0]
        for name in first.missing:
            print(f"{name}: this Python lacks {SUITES[name].needs} ({PACKAGES})")
        tests = [test for test in first.tests if matches(test, patterns) and test not in without]
        runs: dict[str, list[Result]] = {test: [] for test in tests}
        for result in run_all(zygotes, tests * options.repeat, options.limit):
            runs[result.id].append(result)
            if result.bad:
                _show(result)
    results = {test: max(some, key=_badness) for test, some in runs.items()}
    seconds = time.monotonic() - start
    _summarize(runs, results, seconds)
    if options.save:
        document = {
            **first.about,
            "context": context,
            "start_method": options.start_method,
            "suites": {name: "missing" if name in first.missing else "run" for name in suites},
            "match": patterns,
            "repeat": options.repeat,
            "seconds": round(seconds, 1),
            "totals": Counter(result.outcome for result in results.values()),
        }
        tests = [f"{json.dumps(test)}: {json.dumps(r.to_json())}" for test, r in results.items()]
        options.save.mkdir(parents=True, exist_ok=True)
        name = f"{first.about['python']}-{context}-{options.start_method}.json"
        head = json.dumps(document, indent=1).removesuffix("\n}")
        # A line for each test, so that two files can be compared.
        text = f'{head},\n "tests": {{\n  ' + ",\n  ".join(tests) + "\n }\n}\n"
        (options.save / name).write_text(text)
    return Run(results, first.offered)


def _badness(result: Result) -> int:
    return OUTCOMES.index(result.outcome)


def _show(result: Result) -> None:
    print(f"=== {result.outcome} after {result.seconds:.1f} s: {result.id}")
    print(result.details or result.reason, flush=True)


def _summarize(runs: dict[str, list[Result]], results: dict[str, Result], seconds: float) -> None:
    for outcome in OUTCOMES[1:]:
        for test, result in results.items():
            if result.outcome == outcome:
                some = runs[test]
                times = sum(run.bad for run in some)
                often = f" {times} of {len(some)} times" if times and len(some) > 1 else ""
                excuse = f" (does not count: {result.excuse})" if times and result.excuse else ""
                print(f"{outcome}{often}: {test}: {result.reason}{excuse}")
    for field, what in (
        ("left", "processes had to be killed"),
        ("altered", "threads or such left"),
    ):
        if tests := [test for test, result in results.items() if getattr(result, field)]:
            print(f"{what} after:", *tests, sep="\n  ")
    totals = Counter(result.outcome for result in results.values())
    counts = ", ".join(f"{totals[outcome]} {outcome}" for outcome in OUTCOMES)
    print(f"\nran {len(results)} tests: {counts}; {seconds:.0f} s")


def _show_routing(run: Run) -> bool:
    """Tell how many tests made what of ours; return whether any did."""
    count = Counter(name for result in run.results.values() for name in result.touched)
    print("\ntests that made an object of ours:")
    print(*(f"  {name}: {count[name]}" for name in run.offered), sep="\n")
    print(f"  nothing: {sum(not result.touched for result in run.results.values())}")
    if not count:
        print("the context under test was not used at all")
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
