"""What a scenario is: something to do, how to show how long it took, and what we want of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """What one measurement found, in seconds per operation."""

    # The mean; of round trips, the median.
    seconds: float
    # Of round trips only.
    p99: float | None = None

    @classmethod
    def since(cls, began: float, count: int) -> Sample:
        """The mean of so many operations that began then, by `time.perf_counter`."""
        return cls((time.perf_counter() - began) / count)


# Takes a context, or a peer that looks like one, and how often to do it.
Measure = Callable[[Any, int], Sample]


@dataclass(frozen=True)
class Unit:
    """How to show seconds per operation."""

    name: str
    show: Callable[[float], float]
    digits: int = 0

    def text(self, seconds: float) -> str:
        """The figure with its unit."""
        return f"{self.show(seconds):,.{self.digits}f} {self.name}"


PER_SECOND = Unit("k/s", lambda seconds: 1e-3 / seconds, digits=1)
MILLION_PER_SECOND = Unit("M/s", lambda seconds: 1e-6 / seconds, digits=2)
MILLISECONDS = Unit("ms", lambda seconds: seconds * 1e3, digits=3)
MICROSECONDS = Unit("us", lambda seconds: seconds * 1e6, digits=1)
NANOSECONDS = Unit("ns", lambda seconds: seconds * 1e9)


def gib_per_second(size: int) -> Unit:
    """Throughput of messages of so many bytes."""
    return Unit("GiB/s", lambda seconds: size / seconds / 2**30, digits=2)


@dataclass(frozen=True)
class Goal:
    """What a scenario is to reach: all that is given here."""

    # Times as fast as stock.
    ratio: float | None = None
    # At most, absolutely.
    seconds: float | None = None
    p99: float | None = None

    def text(self, unit: Unit) -> str:
        """The goal in words."""
        words = []
        if self.ratio is not None:
            words.append("not above stock" if self.ratio == 1 else f"{self.ratio:g}x")
        if self.seconds is not None:
            words.append(f"under {unit.show(self.seconds):g} {unit.name}")
        if self.p99 is not None:
            words.append(f"p99 under {unit.show(self.p99):g} {unit.name}")
        return ", ".join(words)


NOT_ABOVE_STOCK = Goal(ratio=1)


@dataclass(frozen=True)
class Scenario:
    """Something to measure."""

    group: str
    title: str
    unit: Unit
    # What a peer must offer to take part; contexts of multiprocessing offer everything.
    needs: str
    measure: Measure
    goal: Goal | None = None
    # What a bare prototype reached: one without timeouts, dead peers and spawn. A number followed
    # by "x" is times stock.
    floor: str = ""
    # Instead of as often as it takes to last for a while; and at most so often.
    count: int | None = None
    most: int | None = None
    # Whether a ratio to stock means anything.
    compared: bool = True

    @property
    def name(self) -> str:
        """The title as it is typed on a command line."""
        kept = "".join(letter if letter.isalnum() else " " for letter in self.title.lower())
        return "_".join(kept.split())
