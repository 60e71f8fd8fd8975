"""Bars of ratios to stock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .model import Scenario
from .record import Run
from .report import Row, rows
from .sides import OURS, PEERS, STOCK

# Groups side by side, to make the plot about as wide as high.
COLUMNS = (("Queue", "Round trip"), ("Locks", "Contention", "Values", "Creation", "Pool"))
ROW_HEIGHT = 0.23


def draw(runs: list[Run], known: dict[str, Scenario], stem: Path) -> list[Path]:
    """Plot how many times as fast as stock ours and the peers are.

    Returns
    -------
    list of Path
        The files: `stem` with ``.svg`` and ``.png``; none if there is nothing to draw.
    """
    drawn = [
        row
        for row in rows(runs, known)
        if row.scenario.compared and OURS in row.figures and STOCK in row.figures
    ]
    columns = [[row for row in drawn if row.scenario.group in groups] for groups in COLUMNS]
    columns = [column for column in columns if column]
    if not columns:
        return []
    # At least as high as the legend needs.
    height = max(2.5, ROW_HEIGHT * max(map(len, columns)) + 1.2)
    chart, axes = plt.subplots(
        1, len(columns), figsize=(6.5 * len(columns), height), layout="constrained", squeeze=False
    )
    for axis, column in zip(axes[0], columns, strict=True):
        _draw_column(axis, column)
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    chart.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize="small"
    )
    return save(chart, stem)


def _draw_column(axis: Any, column: list[Row]) -> None:
    places = range(len(column))
    ratios = [row.figures[OURS].ratio or 1.0 for row in column]
    colours = ["tab:blue" if ratio >= 1 else "tab:red" for ratio in ratios]
    # From stock's 1 to the ratio: on a logarithmic axis a bar has no other beginning.
    axis.barh(places, [ratio - 1 for ratio in ratios], 0.7, left=1, color=colours, label=OURS)
    goals = [
        (place, goal)
        for place, row in zip(places, column, strict=True)
        if (goal := _goal(row)) is not None
    ]
    if goals:
        heights, marks = zip(*goals, strict=True)
        axis.plot(marks, heights, "|", color="black", markersize=9, label="goal")
    for name, marker in zip(PEERS, "os^vD*P", strict=True):
        points = [
            (row.figures[name].ratio, place)
            for place, row in zip(places, column, strict=True)
            if name in row.figures
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker, markersize=4, label=name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(places, [row.scenario.title for row in column], fontsize="small")
    axis.set_ylim(len(column) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel("times as fast as stock")


def _goal(row: Row) -> float | None:
    """The goal as a ratio to stock."""
    goal = row.scenario.goal
    if goal is None:
        return None
    if goal.seconds is not None:
        return row.figures[STOCK].seconds / goal.seconds
    return goal.ratio


def save(chart: Any, stem: Path, *suffixes: str) -> list[Path]:
    """Write a plot, as PNG and SVG unless told, with nothing in it that changes between runs."""
    plt.rcParams["svg.hashsalt"] = "mpipc"
    files = [stem.with_name(stem.name + suffix) for suffix in suffixes or (".svg", ".png")]
    for file in files:
        changing = "Date" if file.suffix == ".svg" else "Software"
        chart.savefig(file, metadata={changing: None}, dpi=110)
    plt.close(chart)
    return files
