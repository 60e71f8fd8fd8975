"""Put the figures of some runs into docs/performance.md, and draw its plot.

make performance RUNS='FIRST.json SECOND.json THIRD.json'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mpipc.bench.plot import draw
from mpipc.bench.record import Run
from mpipc.bench.report import markdown, missing, rows
from mpipc.bench.scenarios import all_scenarios
from mpipc.bench.sides import OURS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN = "<!-- begin of the figures, made by `make performance`: do not edit -->"
END = "<!-- end of the figures -->"


def where(runs: list[Run]) -> Iterator[str]:
    """What the figures were taken on."""
    for run in runs:
        machine = run.machine
        yield (
            f"- {run.date[:10]}, commit `{run.commit}`: {machine['cpu']}, {machine['cores']} "
            f"cores, Linux {machine['kernel']}, {machine['python']}, start method "
            f"{run.start_method}; {run.rounds} samples of about {run.seconds_per_sample:g} s."
        )
    versions = {f"{name} {version}" for run in runs for name, version in run.versions.items()}
    if versions:
        yield f"- Peers: {', '.join(sorted(versions))}."


def section(runs: list[Run]) -> Iterator[str]:
    """The lines between the marks."""
    known = all_scenarios()
    count = "run" if len(runs) == 1 else f"runs, medians of {len(runs)}"
    yield f"{BEGIN}\n\nFrom the {count}:\n"
    yield from where(runs)
    yield f"\n![times as fast as stock]({PAGE.stem}.svg)"
    yield from markdown(runs, known)
    verdicts = [row.verdict for row in rows(runs, known) if OURS in row.figures]
    counts = (f"{verdicts.count(verdict)} {verdict}" for verdict in sorted({*verdicts} - {""}))
    yield f"\nGoals: {', '.join(counts)}."
    if left := missing(runs, known):
        yield f"\nNot measured in these runs: {', '.join(left)}."
    yield f"\n{END}"


def main() -> None:
    """Write page and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="JSON", help="runs of mpipc bench")
    runs = [Run.load(file) for file in parser.parse_args().runs]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        parser.error(f"{PAGE} lacks the marks between which the figures stand")
    PAGE.write_text(before + "\n".join(section(runs)) + after)
    draw(runs, all_scenarios(), PAGE.with_suffix(""))


if __name__ == "__main__":
    main()
