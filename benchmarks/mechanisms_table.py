"""Make docs/mechanisms_figures.md and its plot from the samples of all mechanisms.

make mechanisms-table     # after make mechanisms-bench
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from mpipc.bench.figures import Figure, figures
from mpipc.bench.plot import save
from mpipc.bench.record import Run
from mpipc.bench.report import contexts
from mpipc.bench.sides import STOCK

HERE = Path(__file__).resolve().parent
SAMPLES = HERE / "results" / "mechanisms.json"
PAGE = HERE.parent / "docs" / "mechanisms_figures.md"

# How the titles of a group begin; what is left of them heads a column.
GROUPS = {
    "Queue, one producer and one consumer": "Queue, ",
    "Pipe, there and back": "Pipe, round trip of ",
    "Locks and values": "",
}


def main() -> None:
    """Write page and plot."""
    run = Run.load(SAMPLES)
    found = figures([run])
    groups: dict[str, dict[str, str]] = {head: {} for head in GROUPS}
    for result in run.results:
        head = next(head for head, start in GROUPS.items() if result.title.startswith(start))
        groups[head][result.scenario] = result.title.removeprefix(GROUPS[head])
    sides = contexts([run])
    lines = [
        "# Figures of the mechanisms",
        "",
        "Made by `make mechanisms-table` from the samples of `make mechanisms-bench`, taken in one",
        f"interleaved run on {run.machine['cpu']}, {run.machine['cores']} cores, Linux",
        f"{run.machine['kernel']}, {run.machine['python']}. Medians of {run.rounds} samples;",
        "in brackets how many times as fast as stock. Trust these ratios more than the times.",
        "What each mechanism is good for is in [mechanisms.md](mechanisms.md).",
        "",
        f"![times as fast as stock]({PAGE.stem}.svg)",
    ]
    for head, columns in groups.items():
        lines += ["", f"## {head}", "", f"| context | {' | '.join(columns.values())} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for side in sides:
            cells = [cell(found[scenario].get(side), side) for scenario in columns]
            name = f"stock ({run.start_method})" if side == STOCK else side
            lines.append(f"| {name} | {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    plot(found, groups, [side for side in sides if side != STOCK])


def cell(figure: Figure | None, side: str) -> str:
    """The time of an operation, and the ratio."""
    if figure is None:
        return "failed"
    seconds = figure.seconds
    unit, factor = next(
        (u, f) for u, f in (("ms", 1e3), ("us", 1e6), ("ns", 1e9)) if seconds * f >= 1
    )
    text = f"{seconds * factor:.3g} {unit}"
    return text if side == STOCK or figure.ratio is None else f"{text} ({figure.ratio:.2g})"


def plot(
    found: dict[str, dict[str, Figure]], groups: dict[str, dict[str, str]], sides: list[str]
) -> None:
    """Draw how many times as fast as stock each context is, a panel for each group."""
    chart, axes = plt.subplots(1, len(groups), figsize=(15, 5), sharey=True, layout="constrained")
    for axis, (head, columns) in zip(axes, groups.items(), strict=True):
        height = 1 / (len(columns) + 1)
        for offset, (scenario, title) in enumerate(columns.items()):
            ratios = [getattr(found[scenario].get(side), "ratio", 1) for side in sides]
            places = [place + offset * height for place in range(len(sides))]
            axis.barh(places, ratios, height, label=title)
        middle = (len(columns) - 1) / 2 * height
        axis.set_yticks([place + middle for place in range(len(sides))], sides)
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=1)
        axis.set_title(head)
        axis.set_xlabel("times as fast as stock")
        axis.legend(fontsize="small")
    axes[0].invert_yaxis()
    save(chart, PAGE.with_suffix(""), ".svg")


if __name__ == "__main__":
    main()
