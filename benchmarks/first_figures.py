"""Figures of mpipc against stock multiprocessing: throughput, latency, and locks.

    python benchmarks/first_figures.py [--quick] [--json FILE] [SCENARIO...]

Stock and mpipc are measured in turn within one run, so that whatever else the machine does
disturbs both: trust the ratios more than the figures. Each sample repeats its operation as often
as it takes to last for a while; the table gives the median of the samples and, in per cent of it,
half the distance between their quartiles.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path

from measure import (
    GIB_PER_SECOND,
    MICROSECONDS,
    NANOSECONDS,
    NOISE,
    PER_SECOND,
    Measure,
    Scenario,
    Series,
    Unit,
    compare,
    drain,
    lock_pairs,
    round_trips,
    show,
    value_increments,
    write,
)

from mpipc.cli.machine import Machine
from mpipc.cli.sides import add_start_method, with_start_method

SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, unit: Unit) -> Callable[[Measure], Measure]:
    """Register a function under its name as the scenario of that title."""

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        SCENARIOS[name] = Scenario(name, title, unit, measure)
        return measure

    return register


@scenario("Queue: int", PER_SECOND)
def queue_int(ctx: BaseContext, count: int) -> float:
    """One producer, one consumer, the smallest message."""
    return drain(ctx, 1, count)


@scenario("Queue: 100 bytes", PER_SECOND)
def queue_100_bytes(ctx: BaseContext, count: int) -> float:
    """One producer, one consumer, a small message."""
    return drain(ctx, NOISE[:100], count)


@scenario("Queue: 1 MiB", GIB_PER_SECOND)
def queue_1_mib(ctx: BaseContext, count: int) -> float:
    """One producer, one consumer, a large message."""
    # Bounded, lest a producer that is faster than its consumer fills the machine's memory.
    return drain(ctx, NOISE, count, maxsize=32)


@scenario("Pipe: round trip", MICROSECONDS)
def pipe_round_trip(ctx: BaseContext, count: int) -> float:
    """There and back between two processes."""
    return round_trips(ctx, 1, count)


scenario("Lock: acquire, release", NANOSECONDS)(lock_pairs)
scenario("Value: += 1, locked", NANOSECONDS)(value_increments)


def row(chosen: Scenario, stock: Series, contender: Series) -> list[str]:
    """The table's cells for one scenario."""
    cells = [chosen.title]
    for series in (stock, contender):
        cells += [chosen.unit.text(series.median), f"±{series.spread:.0%}"]
    return [*cells, f"{stock.median / contender.median:.1f}"]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Measure mpipc against stock multiprocessing.",
        epilog="scenarios: " + ", ".join(SCENARIOS),
    )
    parser.add_argument("names", metavar="SCENARIO", nargs="*", help="measure only these")
    parser.add_argument("--quick", action="store_true", help="few short samples: for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    add_start_method(parser)
    parser.add_argument(
        "--context",
        default="mpipc-shm",
        metavar="NAME",
        help="compare stock with this context instead of %(default)s",
    )
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"no folder {arguments.json.parent}")
    arguments.context = with_start_method(arguments.context, arguments.start_method)
    try:
        multiprocessing.get_context(arguments.context)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    arguments = parse(argv)
    rounds, seconds = (3, 0.05) if arguments.quick else (9, 0.5)
    machine = Machine.current()
    print(machine)
    names = (arguments.start_method, arguments.context)
    results = []
    rows = []
    for chosen in [SCENARIOS[name] for name in arguments.names or SCENARIOS]:
        print(f"measuring {chosen.name} ...", file=sys.stderr)
        stock, contender = compare(chosen.measure, names, rounds, seconds)
        rows.append(row(chosen, stock, contender))
        results.append(
            {
                "scenario": chosen.name,
                "title": chosen.title,
                "stock": stock.as_json(),
                "contender": contender.as_json(),
                "ratio": stock.median / contender.median,
            }
        )
    show(["", f"stock {names[0]}", "", names[1], "", "ratio"], rows)
    if arguments.json:
        write(arguments.json, rounds, seconds, results)


if __name__ == "__main__":
    main()
