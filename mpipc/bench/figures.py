"""Figures from samples: of one run or of several, and between two what got slower."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .model import Goal, Scenario
from .record import Run, Series
from .sides import STOCK

# What became of a goal; and below stock, whatever the goal.
MET, MISSED, BELOW = "met", "missed", "below stock"


@dataclass(frozen=True)
class Figure:
    """What is known of one side in one scenario; medians, over the runs, of those of each run."""

    seconds: float
    # Half the distance between the quartiles, as a part of the median.
    spread: float
    p99: float | None
    # Times as fast as stock, in rounds side by side.
    ratio: float | None
    ratio_spread: float = 0.0

    def judge(self, goal: Goal | None, compared: bool = True) -> str:
        """What became of a goal; "" where there is none and nothing is wrong.

        Between "not above stock" and above it lies the noise: half the quartiles' distance.
        """
        if compared and self.ratio is not None and self.ratio * (1 + self.ratio_spread) < 1:
            return BELOW
        if goal is None:
            return ""
        wanted = goal.ratio
        if wanted is not None:
            if self.ratio is None:
                return ""
            reached = self.ratio * (1 + self.ratio_spread if wanted == 1 else 1)
            if reached < wanted:
                return MISSED
        if goal.seconds is not None and self.seconds > goal.seconds:
            return MISSED
        if goal.p99 is not None and (self.p99 is None or self.p99 > goal.p99):
            return MISSED
        return MET


def spread(samples: list[float]) -> float:
    """Half the distance between the quartiles, as a part of the median."""
    if len(samples) < 2:
        return 0.0
    lower, middle, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return (upper - lower) / 2 / middle


def figure(pairs: list[tuple[Series, Series | None]]) -> Figure | None:
    """The figure of a side from its series and stock's of each run; None without samples."""
    pairs = [(series, stock) for series, stock in pairs if series.samples]
    if not pairs:
        return None
    ratios = [
        [theirs / ours for ours, theirs in zip(series.samples, stock.samples, strict=False)]
        for series, stock in pairs
        if stock is not None and stock.samples
    ]
    p99 = [statistics.median(series.p99) for series, _ in pairs if series.p99]
    return Figure(
        seconds=statistics.median(statistics.median(series.samples) for series, _ in pairs),
        spread=spread([sample for series, _ in pairs for sample in series.samples]),
        p99=statistics.median(p99) if p99 else None,
        ratio=statistics.median(map(statistics.median, ratios)) if ratios else None,
        ratio_spread=spread([ratio for of_run in ratios for ratio in of_run]),
    )


def figures(runs: Iterable[Run]) -> dict[str, dict[str, Figure]]:
    """All figures of some runs, by scenario and side."""
    pairs: dict[str, dict[str, list[tuple[Series, Series | None]]]] = {}
    for run in runs:
        for result in run.results:
            sides = pairs.setdefault(result.scenario, {})
            for name, series in result.sides.items():
                sides.setdefault(name, []).append((series, result.sides.get(STOCK)))
    return {
        scenario: {name: found for name, of_side in sides.items() if (found := figure(of_side))}
        for scenario, sides in pairs.items()
    }


def errors(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """Why a side has no samples, or not all, by scenario and side."""
    return {
        (result.scenario, name): series.error
        for run in runs
        for result in run.results
        for name, series in result.sides.items()
        if series.error
    }


@dataclass(frozen=True)
class Change:
    """How a side's figure in a scenario changed; 0.8 is slower than before."""

    scenario: str
    side: str
    factor: float
    # Whether that is beyond noise, and beyond what is tolerated.
    slower: bool


def changes(old: Run, new: Run, known: dict[str, Scenario], tolerated: float = 0.1) -> list[Change]:
    """Compare two runs.

    Ratios to stock are compared, since two runs may have met the machine in different moods, or
    different machines; times where a ratio means nothing.

    Parameters
    ----------
    old, new : Run
        The runs.
    known : dict
        The scenarios by name.
    tolerated : float
        What part of its speed a side may lose.

    Returns
    -------
    list of Change
        One for each side but stock in each scenario that both runs have, the worst first.
    """
    found = []
    before = figures([old])
    for scenario, sides in figures([new]).items():
        compared = scenario not in known or known[scenario].compared
        for side, after in sides.items():
            first = before.get(scenario, {}).get(side)
            if first is None or side == STOCK:
                continue
            if compared and first.ratio is not None and after.ratio is not None:
                factor = after.ratio / first.ratio
                noise = first.ratio_spread + after.ratio_spread
            else:
                factor = first.seconds / after.seconds
                noise = first.spread + after.spread
            slower = factor < 1 - tolerated and factor < 1 - noise
            found.append(Change(scenario, side, factor, slower))
    return sorted(found, key=lambda change: change.factor)
