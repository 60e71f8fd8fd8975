"""Make docs/mechanisms_figures.md and its plot from the samples of mechanisms.py.

python benchmarks/mechanisms_table.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
SAMPLES = HERE / "results" / "mechanisms.json"
PAGE = HERE.parent / "docs" / "mechanisms_figures.md"
PLOT = PAGE.with_suffix(".svg")

GROUPS = {
    "Queue, one producer and one consumer": "Queue, ",
    "Pipe, there and back": "round trip, ",
    "Locks and values": "",
}


def main() -> None:
    """Write both files."""
    figures = json.loads(SAMPLES.read_text())
    results = {result["title"]: result["series"] for result in figures["results"]}
    groups: dict[str, list[str]] = {head: [] for head in GROUPS}
    for title in results:
        groups[next(head for head, start in GROUPS.items() if title.startswith(start))].append(
            title
        )
    machine = figures["machine"]
    lines = [
        "# Figures of the mechanisms",
        "",
        "Made by `benchmarks/mechanisms_table.py` from the samples of `benchmarks/mechanisms.py`,",
        f"taken in one interleaved run on {machine['cpu']}, {machine['cores']} cores, Linux",
        f"{machine['kernel']}, {machine['python']}. Medians of {figures['rounds']} samples;",
        "in brackets how many times as fast as stock. Trust these ratios more than the times.",
        "What each mechanism is good for is in [mechanisms.md](mechanisms.md).",
        "",
        f"![times as fast as stock]({PLOT.name})",
    ]
    for head, titles in groups.items():
        columns = [title.removeprefix(GROUPS[head]) for title in titles]
        lines += ["", f"## {head}", "", f"| context | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for index, series in enumerate(results[titles[0]]):
            cells = [cell(results[title][0], results[title][index]) for title in titles]
            lines.append(f"| {name_of(series)} | {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    plot(results, groups)
    print(PAGE, PLOT, sep="\n")


def name_of(series: dict[str, Any]) -> str:
    """The context without its start method; stock's by that name."""
    name, _, method = series["context"].rpartition("-")
    return name or f"stock ({method})"


def cell(stock: dict[str, Any], series: dict[str, Any]) -> str:
    """The time of an operation, and the ratio."""
    seconds = series["median"]
    unit, factor = next(
        (u, f) for u, f in (("ms", 1e3), ("us", 1e6), ("ns", 1e9)) if seconds * f >= 1
    )
    text = f"{seconds * factor:.3g} {unit}"
    return text if series is stock else f"{text} ({stock['median'] / seconds:.2g})"


def plot(results: dict[str, list[dict[str, Any]]], groups: dict[str, list[str]]) -> None:
    """Draw how many times as fast as stock each context is, a panel for each group."""
    figure, axes = plt.subplots(1, len(groups), figsize=(15, 5), sharey=True, layout="constrained")
    for axis, (head, titles) in zip(axes, groups.items(), strict=True):
        contexts = [name_of(series) for series in results[titles[0]]][1:]
        for offset, title in enumerate(titles):
            stock = results[title][0]["median"]
            ratios = [stock / series["median"] for series in results[title][1:]]
            places = [place + offset / (len(titles) + 1) for place in range(len(contexts))]
            axis.barh(places, ratios, 1 / (len(titles) + 1), label=title.removeprefix(GROUPS[head]))
        middle = statistics.mean(range(len(titles))) / (len(titles) + 1)
        axis.set_yticks([place + middle for place in range(len(contexts))], contexts)
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=1)
        axis.set_title(head)
        axis.set_xlabel("times as fast as stock")
        axis.legend(fontsize="small")
    axes[0].invert_yaxis()
    # Nothing in the file that changes from run to run.
    plt.rcParams["svg.hashsalt"] = "mpipc"
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
