"""Figures of every mechanism and of stock multiprocessing, side by side.

    python benchmarks/mechanisms.py --json benchmarks/results/mechanisms.json
    python benchmarks/mechanisms_table.py      # docs/mechanisms_figures.md and .svg from it

All contexts are measured in turn within one run; see first_figures.py for how to read the figures.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from measure import NOISE, Measure, compare, drain, lock_pairs, round_trips, value_increments, write

from mpipc._registry import PREFIX, mechanisms
from mpipc.cli.machine import Machine
from mpipc.cli.mechanisms import report
from mpipc.cli.sides import add_start_method, with_start_method

SIZES = {"100 B": 100, "1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20}


def measures() -> dict[str, Measure]:
    """What to measure, by its title."""
    found: dict[str, Measure] = {}
    for title, size in SIZES.items():
        # Bounded, lest a fast producer fills the machine's memory.
        found[f"Queue, {title}"] = partial(_drain, NOISE[:size], max(32, (1 << 22) // size))
    for title, size in SIZES.items():
        found[f"round trip, {title}"] = partial(_round_trips, NOISE[:size])
    found["Lock, acquire and release"] = lock_pairs
    found["Value, += 1 locked"] = value_increments
    return found


def _drain(message: bytes, maxsize: int, ctx: Any, count: int) -> float:
    return drain(ctx, message, count, maxsize)


def _round_trips(message: bytes, ctx: Any, count: int) -> float:
    return round_trips(ctx, message, count)


def main() -> None:
    """Measure all, and write the samples."""
    parser = argparse.ArgumentParser(description="Measure every mechanism, and stock.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these mechanisms")
    parser.add_argument("--quick", action="store_true", help="few short samples: for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    add_start_method(parser)
    options = parser.parse_args()
    rounds, seconds = (3, 0.05) if options.quick else (7, 0.3)
    print(Machine.current())
    names = [options.start_method]
    for name in options.names or mechanisms():
        if why_not := report(mechanisms()[name]).why_not:
            print(f"without {name}: {why_not}", file=sys.stderr)
        else:
            names.append(with_start_method(PREFIX + name, options.start_method))
    results = []
    for title, measure in measures().items():
        print(title, flush=True)
        series = compare(measure, names, rounds, seconds)
        for each in series:
            ratio = series[0].median / each.median
            time = f"{each.median * 1e6:12.2f} us ±{each.spread:4.0%}"
            print(f"  {each.context:24} {time} {ratio:8.2f}x")
        results.append({"title": title, "series": [each.as_json() for each in series]})
    if options.json:
        write(options.json, rounds, seconds, results)


if __name__ == "__main__":
    main()
