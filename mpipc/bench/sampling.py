"""Samples of all sides, taken in turn."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mpipc.testing import watchdog

from .model import Sample, Scenario
from .record import Result, Series
from .sides import Side

# What no sample takes longer than, beside what it is meant to take.
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """How many samples to take of each side, and how long one lasts, about."""

    rounds: int = 7
    seconds: float = 0.2


QUICK = Plan(rounds=3, seconds=0.03)


@contextlib.contextmanager
def undisturbed(seconds: float) -> Iterator[None]:
    """Keep the garbage collector out, and do not wait for ever."""
    gc.collect()
    gc.disable()
    try:
        with watchdog(PATIENCE + 10 * seconds):
            yield
    finally:
        gc.enable()


def calibrate(scenario: Scenario, side: Side, seconds: float) -> int:
    """Find how many operations last so many seconds, going by the fastest of two tries or more."""
    if scenario.count is not None:
        return scenario.count
    most = scenario.most or sys.maxsize
    count, fastest = 1, math.inf
    for tries in itertools.count(1):
        with undisturbed(seconds):
            fastest = min(fastest, scenario.measure(side.context, count).seconds)
        enough = min(most, max(1, round(seconds / fastest)))
        if tries > 1 and count >= enough / 2:
            break
        count = min(enough, 8 * count)
    return enough


def take_turns(
    scenario: Scenario,
    sides: list[Side],
    plan: Plan,
    advance: Callable[[str], None] = lambda side: None,
) -> Result:
    """Measure a scenario on every side that plays it, round by round.

    Parameters
    ----------
    scenario : Scenario
        What to measure.
    sides : list of Side
        Who takes part. One that fails says why in its series and takes no further part.
    plan : Plan
        How many rounds, and how long each sample lasts.
    advance : callable
        Called with the side's name before each of ``plan.rounds + 1`` steps of each side.

    Returns
    -------
    Result
        The samples.
    """
    players = [side for side in sides if side.plays(scenario)]
    found = {side.name: Series() for side in players}

    def attempt(side: Side, step: Callable[[Series], None]) -> None:
        series = found[side.name]
        advance(side.name)
        if series.error:
            return
        try:
            step(series)
        except Exception as error:  # whatever it is, the others go on
            series.error = f"{type(error).__name__}: {error}"

    def count(side: Side) -> Callable[[Series], None]:
        def step(series: Series) -> None:
            series.count = calibrate(scenario, side, plan.seconds)

        return step

    def measure(side: Side) -> Callable[[Series], None]:
        def step(series: Series) -> None:
            with undisturbed(plan.seconds):
                sample: Sample = scenario.measure(side.context, series.count)
            series.add(sample)

        return step

    for side in players:
        attempt(side, count(side))
    for _ in range(plan.rounds):
        for side in players:
            attempt(side, measure(side))
    return Result(scenario.name, scenario.title, found)
