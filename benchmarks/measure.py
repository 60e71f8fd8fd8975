"""What the benchmarks share: samples of contexts in turn, and where they were taken."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from mpipc.cli.machine import Machine

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


def echo(link: Connection[Any, Any]) -> None:
    """Send back what comes, until None."""
    while (message := link.recv()) is not None:
        link.send(message)


def round_trips(ctx: BaseContext, message: object, count: int) -> float:
    """Time how long a message takes there and back between two processes, so many times."""
    link, other_end = ctx.Pipe()
    process = ctx.Process(target=echo, args=(other_end,))  # type: ignore[attr-defined]
    process.start()
    other_end.close()
    with link:
        link.send(message)
        link.recv()
        began = time.perf_counter()
        for _ in range(count):
            link.send(message)
            link.recv()
        seconds = time.perf_counter() - began
        link.send(None)
        process.join()
    return seconds


def lock_pairs(ctx: BaseContext, count: int) -> float:
    """A lock that nobody else wants."""
    acquire, release = (mutex := ctx.Lock()).acquire, mutex.release
    began = time.perf_counter()
    for _ in range(count):
        acquire()
        release()
    return time.perf_counter() - began


def value_increments(ctx: BaseContext, count: int) -> float:
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


def compare(measure: Measure, names: Iterable[str], rounds: int, seconds: float) -> list[Series]:
    """Measure something on several contexts in turn.

    Parameters
    ----------
    measure : callable
        What to measure.
    names : iterable of str
        The contexts.
    rounds : int
        How many samples to take of each.
    seconds : float
        How long a sample lasts, about.

    Returns
    -------
    list of Series
        The samples, in the order of the names.
    """
    contexts = {name: multiprocessing.get_context(name) for name in names}
    found = [Series(name, calibrate(measure, ctx, seconds), []) for name, ctx in contexts.items()]
    for _ in range(rounds):
        for series in found:
            # A hang shows where it is and ends the run.
            faulthandler.dump_traceback_later(60 + 60 * seconds, exit=True)
            sample = measure(contexts[series.context], series.count)
            series.samples.append(sample / series.count)
    faulthandler.cancel_dump_traceback_later()
    return found


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


def write(file: Path, rounds: int, seconds: float, results: list[dict[str, Any]]) -> None:
    """Write all samples of a run, with what they were taken on."""
    figures = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": asdict(Machine.current()),
        "rounds": rounds,
        "seconds_per_sample": seconds,
        "results": results,
    }
    file.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"all samples are in {file}")
