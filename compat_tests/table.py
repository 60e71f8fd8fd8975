"""Write the table of results for the documentation.

    python compat_tests/table.py RESULTS_DIR [--output docs/compat_table.md]

RESULTS_DIR has files of `python compat_tests --json`, of stock and of other contexts. The causes of
differences are written by hand, in `reasons.py`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import reasons
from harness import OUTCOMES, Result
from suites import METHODS, SUITES

DOCS = Path(__file__).resolve().parent.parent / "docs" / "compat_table.md"


@dataclass(frozen=True)
class Run:
    """One file of results."""

    python: str
    context: str
    method: str
    platform: str
    suites: dict[str, str]
    results: dict[str, Result]

    def of(self, suite: str) -> dict[str, Result]:
        return {test: r for test, r in self.results.items() if test.startswith(f"{suite}.")}


def read(folder: Path) -> list[Run]:
    runs = []
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text())
        results = {test: Result(test, **fields) for test, fields in data["tests"].items()}
        runs.append(
            Run(
                data["python"],
                data["context"],
                data["start_method"],
                data["platform"],
                data["suites"],
                results,
            )
        )
    # 3.9 before 3.10
    return sorted(runs, key=lambda run: [int(part) for part in run.python.split(".")[:2]])


def table(
    ours: dict[tuple[str, str, str], Run], stock: dict[tuple[str, str], Run]
) -> Iterator[str]:
    """How many tests pass, of how many that pass on stock."""
    yield "| suite | Python | context | " + " | ".join(METHODS) + " |"
    yield "|---|---|---|" + "---|" * len(METHODS)
    for suite in SUITES:
        for python, context in dict.fromkeys(key[:2] for key in ours):
            cells = [
                cell(suite, ours.get((python, context, method)), stock.get((python, method)))
                for method in METHODS
            ]
            yield f"| {suite} | {python} | {context} | " + " | ".join(cells) + " |"


def cell(suite: str, run: Run | None, stock: Run | None) -> str:
    if run is None:
        return "not run"
    if run.suites.get(suite) != "run":
        return "not installed"
    counts = [
        str(sum(result.outcome == "passed" for result in some.of(suite).values()))
        for some in (run, stock)
        if some is not None
    ]
    return " / ".join(counts)


def routing(ours: dict[tuple[str, str, str], Run]) -> Iterator[str]:
    """How many tests made an object of the context, of those that ran."""
    yield "| Python | context | " + " | ".join(METHODS) + " |"
    yield "|---|---|" + "---|" * len(METHODS)
    for python, context in dict.fromkeys(key[:2] for key in ours):
        cells = []
        for method in METHODS:
            run = ours.get((python, context, method))
            results = run.results.values() if run else ()
            touched = sum(bool(result.touched) for result in results)
            cells.append(f"{touched} of {len(results)}" if run else "not run")
        yield f"| {python} | {context} | " + " | ".join(cells) + " |"


def differences(runs: list[Run], stock: dict[tuple[str, str], Run]) -> Iterator[str]:
    """Each test that ends otherwise than on stock, where, and why."""
    found: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for run in runs:
        before = stock.get((run.python, run.method))
        if run.context == "stock" or before is None:
            continue
        for test in before.results.keys() | run.results.keys():
            was, now = (some.results.get(test, Result(test, "missing")) for some in (before, run))
            if was.outcome != now.outcome:
                cause = reasons.cause(test, run.context) or "**cause not known**"
                place = f"{run.context.removeprefix('mpipc-')} {run.python} {run.method}"
                found[test, was.outcome, now.outcome, cause].append(place)
    for (test, old, new, cause), places in sorted(found.items()):
        yield f"- `{test}`: {new}, with stock {old} ({', '.join(sorted(set(places)))}): {cause}"


def stock_itself(runs: list[Run]) -> Iterator[str]:
    """What stock fails or skips, by reason."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        if run.context == "stock":
            for result in run.results.values():
                if result.outcome != "passed":
                    found[result.outcome, result.reason].add(result.id)
    for outcome, reason in sorted(found, key=lambda key: (-OUTCOMES.index(key[0]), key[1])):
        tests = found[outcome, reason]
        names = f"`{min(tests)}`" if len(tests) == 1 else f"{len(tests)} tests"
        yield f"- {outcome}: {names}: {reason}"


def page(runs: list[Run]) -> Iterator[str]:
    stock = {(run.python, run.method): run for run in runs if run.context == "stock"}
    ours = {(run.python, run.context, run.method): run for run in runs if run.context != "stock"}
    yield "# CPython's own tests on mpipc"
    yield ""
    yield "Made by `compat_tests/table.py`; how to run the tests is in [testing.md](testing.md)."
    yield "A cell has the tests that pass and, behind the stroke, those that pass on stock."
    yield f"Run on {'; '.join(sorted({run.platform for run in runs}))}."
    yield ""
    yield from table(ours, stock)
    for title, lines in (
        ("Tests that made an object of ours", list(routing(ours))),
        ("Where a test ends otherwise than on stock", list(differences(runs, stock))),
        ("What stock itself skips or fails", list(stock_itself(runs))),
    ):
        yield from ("", f"## {title}", "", *(lines or ["Nowhere."]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    options.output.write_text("\n".join(page(read(options.results))) + "\n")


if __name__ == "__main__":
    main()
