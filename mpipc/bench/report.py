"""Tables of figures: for a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.table import Table

from .figures import BELOW, MET, MISSED, Figure, errors, figures
from .model import Scenario
from .record import Run
from .sides import OURS, PEERS, STOCK

STYLES = {MET: "green", MISSED: "yellow", BELOW: "bold red", "": ""}


@dataclass(frozen=True)
class Row:
    """A scenario with its figures in words."""

    scenario: Scenario
    figures: dict[str, Figure]
    failed: dict[str, str]

    def time(self, side: str) -> str:
        """How long it takes, or how much goes through."""
        if (found := self.figures.get(side)) is None:
            return "failed" if side in self.failed else "-"
        unit = self.scenario.unit
        text = unit.text(found.seconds)
        return text if found.p99 is None else f"{text}, p99 {unit.text(found.p99)}"

    def ratio(self, side: str, spread: bool = True) -> str:
        """How many times as fast as stock."""
        found = self.figures.get(side)
        if found is None or found.ratio is None or not self.scenario.compared:
            return ""
        text = f"{found.ratio:.{1 if found.ratio < 100 else 0}f}x"
        if found.ratio < 9.95:
            text = f"{found.ratio:.2f}x"
        return f"{text} ±{found.ratio_spread:.0%}" if spread else text

    @property
    def goal(self) -> str:
        """What we want."""
        goal = self.scenario.goal
        return "" if goal is None else goal.text(self.scenario.unit)

    @property
    def verdict(self) -> str:
        """What became of that."""
        found = self.figures.get(OURS)
        return "" if found is None else found.judge(self.scenario.goal, self.scenario.compared)

    def peers(self) -> list[str]:
        """The peers that took part, the fastest first."""
        there = [name for name in PEERS if name in self.figures]
        there.sort(key=lambda name: self.figures[name].seconds)
        return [f"{name} {self.ratio(name, spread=False) or self.time(name)}" for name in there]


def rows(runs: list[Run], known: dict[str, Scenario]) -> list[Row]:
    """A row for each scenario that was measured and is known, in the order of these."""
    found, failed = figures(runs), errors(runs)
    return [
        Row(
            scenario,
            found[name],
            {side: why for (where, side), why in failed.items() if where == name},
        )
        for name, scenario in known.items()
        if name in found
    ]


def missing(runs: list[Run], known: dict[str, Scenario]) -> list[str]:
    """The scenarios that none of the runs has."""
    measured = figures(runs)
    return [name for name in known if name not in measured]


def contexts(runs: list[Run]) -> list[str]:
    """The sides that are no peers."""
    names = [name for run in runs for result in run.results for name in result.sides]
    return [name for name in dict.fromkeys(names) if name not in PEERS]


def table(runs: list[Run], known: dict[str, Scenario]) -> Table:
    """The table for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, caption="± half the distance between the quartiles")
    shown.add_column("scenario", no_wrap=True)
    sides = contexts(runs)
    for side in sides:
        shown.add_column(side, justify="right")
        if side != STOCK:
            shown.add_column("ratio", justify="right")
    judged = OURS in sides
    if judged:
        shown.add_column("goal")
        shown.add_column("")
    shown.add_column("best peer")
    group = ""
    for row in rows(runs, known):
        if group and row.scenario.group != group:
            shown.add_section()
        group = row.scenario.group
        cells = [row.scenario.name]
        for side in sides:
            time = row.time(side).replace(", ", "\n")
            cells += [time] if side == STOCK else [time, row.ratio(side)]
        if judged:
            style = STYLES[row.verdict]
            cells += [row.goal, f"[{style}]{row.verdict}[/]" if style else row.verdict]
        shown.add_row(*cells, next(iter(row.peers()), ""))
    return shown


def markdown(runs: list[Run], known: dict[str, Scenario]) -> Iterator[str]:
    """The lines of a page: a table for each group."""
    group = ""
    for row in rows(runs, known):
        if row.scenario.group != group:
            group = row.scenario.group
            yield from ("", f"### {group}", "")
            yield "| scenario | stock | `mpipc-shm` | ratio | goal | | floor | peers |"
            yield "|---|---|---|---|---|---|---|---|"
        verdict = f"**{row.verdict}**" if row.verdict in (MISSED, BELOW) else row.verdict
        cells = (
            row.scenario.title,
            row.time(STOCK),
            row.time(OURS),
            row.ratio(OURS),
            row.goal,
            verdict,
            row.scenario.floor,
            ", ".join(row.peers()),
        )
        yield f"| {' | '.join(cells)} |"
