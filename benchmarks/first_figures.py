"""Figures of mpipc against stock multiprocessing: throughput, latency, and locks.

    python benchmarks/first_figures.py [--quick] [--json FILE] [SCENARIO...]

Stock and mpipc are measured in turn within one run, so that whatever else the machine does
disturbs both: trust the ratios more than the figures. Each sample repeats its operation as often
as it takes to last for a while; the table gives the median of the samples and, in per cent of it,
half the distance between their quartiles.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from mpipc.cli.machine import Machine
from mpipc.cli.sides import add_start_method, with_start_method

MIB = 2**20

# Real bytes: untouched zeros would all be read from one page that stays in the cache.
NOISE = random.Random(0).randbytes(MIB)

# Does an operation so many times; returns how many seconds that took.
Measure = Callable[[BaseContext, int], float]


@dataclass(frozen=True)
class Unit:
    """How to show seconds per operation."""

    name: str
    show: Callable[[float], float]
    digits: int = 0

    def text(self, seconds: float) -> str:
        """The figure with its unit."""
        return f"{self.show(seconds):,.{self.digits}f} {self.name}"


PER_SECOND = Unit("k/s", lambda seconds: 1e-3 / seconds)
GIB_PER_SECOND = Unit("GiB/s", lambda seconds: MIB / seconds / 2**30, digits=2)
MICROSECONDS = Unit("us", lambda seconds: seconds * 1e6, digits=1)
NANOSECONDS = Unit("ns", lambda seconds: seconds * 1e9)


@dataclass(frozen=True)
class Scenario:
    """Something to measure."""

    name: str
    title: str
    unit: Unit
    measure: Measure


SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, unit: Unit) -> Callable[[Measure], Measure]:
    """Register a function under its name as the scenario of that title."""

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        SCENARIOS[name] = Scenario(name, title, unit, measure)
        return measure

    return register


def produce(queue: Queue[Any], message: object, count: int) -> None:
    """Put a message so many times, and one before that, from which the time counts."""
    for _ in range(count + 1):
        queue.put(message)


def drain(ctx: BaseContext, message: object, count: int, maxsize: int = 0) -> float:
    """Time how long a queue takes from one producer to one consumer."""
    queue: Queue[Any] = ctx.Queue(maxsize)
    producer = ctx.Process(  # type: ignore[attr-defined]
        target=produce, args=(queue, message, count)
    )
    producer.start()
    queue.get()
    began = time.perf_counter()
    for _ in range(count):
        queue.get()
    seconds = time.perf_counter() - began
    producer.join()
    queue.close()
    return seconds


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


def echo(link: Connection[Any, Any]) -> None:
    """Send back what comes, until None."""
    while (message := link.recv()) is not None:
        link.send(message)


@scenario("Pipe: round trip", MICROSECONDS)
def pipe_round_trip(ctx: BaseContext, count: int) -> float:
    """There and back between two processes."""
    link, other_end = ctx.Pipe()
    process = ctx.Process(target=echo, args=(other_end,))  # type: ignore[attr-defined]
    process.start()
    other_end.close()
    with link:
        link.send(1)
        link.recv()
        began = time.perf_counter()
        for _ in range(count):
            link.send(1)
            link.recv()
        seconds = time.perf_counter() - began
        link.send(None)
        process.join()
    return seconds


@scenario("Lock: acquire, release", NANOSECONDS)
def lock(ctx: BaseContext, count: int) -> float:
    """A lock that nobody else wants."""
    acquire, release = (mutex := ctx.Lock()).acquire, mutex.release
    began = time.perf_counter()
    for _ in range(count):
        acquire()
        release()
    return time.perf_counter() - began


@scenario("Value: += 1, locked", NANOSECONDS)
def value_increment(ctx: BaseContext, count: int) -> float:
    """A counter that nobody else wants."""
    counter = ctx.Value("q", 0)
    began = time.perf_counter()
    for _ in range(count):
        with counter.get_lock():
            counter.value += 1
    return time.perf_counter() - began


@dataclass
class Series:
    """The samples of one scenario on one context, in seconds per operation."""

    context: str
    count: int
    samples: list[float]

    @property
    def median(self) -> float:
        """The median sample."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        lower, _, upper = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (upper - lower) / 2 / self.median

    def as_json(self) -> dict[str, Any]:
        """All that is known."""
        return {
            **asdict(self),
            "median": self.median,
            "spread": self.spread,
            "fastest": min(self.samples),
            "slowest": max(self.samples),
        }


def calibrate(measure: Measure, ctx: BaseContext, seconds: float) -> int:
    """Find how many operations last so many seconds."""
    count = 1
    while (took := measure(ctx, count)) < seconds / 5:
        count *= 2 if took > seconds / 50 else 8
    return max(1, round(count * seconds / took))


def compare(
    chosen: Scenario, names: tuple[str, str], rounds: int, seconds: float
) -> tuple[Series, Series]:
    """Measure a scenario on two contexts in turn.

    Parameters
    ----------
    chosen : Scenario
        What to measure.
    names : tuple of str
        The contexts.
    rounds : int
        How many samples to take of each.
    seconds : float
        How long a sample lasts, about.

    Returns
    -------
    tuple of Series
        The samples, in the order of the names.
    """
    contexts = [multiprocessing.get_context(name) for name in names]
    first, second = (
        Series(name, calibrate(chosen.measure, ctx, seconds), [])
        for name, ctx in zip(names, contexts, strict=True)
    )
    for _ in range(rounds):
        for series, ctx in zip((first, second), contexts, strict=True):
            # A hang shows where it is and ends the run.
            faulthandler.dump_traceback_later(60 + 60 * seconds, exit=True)
            series.samples.append(chosen.measure(ctx, series.count) / series.count)
    faulthandler.cancel_dump_traceback_later()
    return first, second


def commit() -> str | None:
    """The commit that is measured, with a mark when the files differ from it."""
    describe = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        answer = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def row(chosen: Scenario, stock: Series, contender: Series) -> list[str]:
    """The table's cells for one scenario."""
    cells = [chosen.title]
    for series in (stock, contender):
        cells += [chosen.unit.text(series.median), f"±{series.spread:.0%}"]
    return [*cells, f"{stock.median / contender.median:.1f}"]


def show(heads: list[str], rows: list[list[str]]) -> None:
    """Print a table, a plain one where rich is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for cells in (heads, *rows):
            print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)


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
        stock, contender = compare(chosen, names, rounds, seconds)
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
        figures = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": asdict(machine),
            "rounds": rounds,
            "seconds_per_sample": seconds,
            "results": results,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"all samples are in {arguments.json}")


if __name__ == "__main__":
    main()
