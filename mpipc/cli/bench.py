"""Measure how fast stock multiprocessing, mpipc and other packages are, taking turns.

Each scenario is measured on all sides that can play it, round by round, so that whatever else the
machine does disturbs them alike: trust the ratios to stock more than the times. Shown are medians.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mpipc.bench.figures import BELOW, MISSED, changes
from mpipc.bench.model import Scenario
from mpipc.bench.plot import draw
from mpipc.bench.record import Run
from mpipc.bench.report import rows, table
from mpipc.bench.sampling import QUICK, Plan, take_turns
from mpipc.bench.scenarios import all_scenarios
from mpipc.bench.sides import MECHANISMS, Side, default_names, find_sides
from mpipc.cli.machine import Machine
from mpipc.cli.sides import add_start_method

# Of what is written to a file or another program.
WIDTH = 150


class WrongCall(Exception):
    """What was asked for cannot be done; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``bench``."""
    parser.add_argument(
        "scenarios",
        metavar="SCENARIO",
        nargs="*",
        help="measure only these; a name or a pattern such as 'queue_*'",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and their goals")
    parser.add_argument("--quick", action="store_true", help="few short samples: for a first look")
    parser.add_argument(
        "--sides",
        metavar="NAME,NAME",
        default=",".join(default_names()),
        help="who takes part (default: %(default)s); also names of contexts, and "
        f"{MECHANISMS!r} for all that work here",
    )
    add_start_method(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="STEM", help="write STEM.svg and STEM.png (default: those of "
        "mpipc-bench, or of the file of --json)"
    )  # fmt: skip
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        metavar="JSON",
        help="measure nothing; table and plot of these runs together",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("OLD", "NEW"),
        help="measure nothing; show what got slower between two runs, and fail if something did",
    )
    parser.add_argument(
        "--tolerate",
        type=float,
        default=10,
        metavar="PERCENT",
        help="with --compare: so much slower is not yet slower (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; 1 if a comparison found something slower, 2 for a wrong call."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    known = all_scenarios()
    try:
        chosen = choose(arguments.scenarios, known)
        if arguments.list:
            for name, scenario in chosen.items():
                goal = scenario.goal.text(scenario.unit) if scenario.goal else ""
                console.print(f"{name:42} {goal}", highlight=False)
            return 0
        if arguments.compare:
            return compare(arguments.compare, known, arguments.tolerate / 100, console)
        runs = (
            [load(file) for file in arguments.table]
            if arguments.table
            else [measure(arguments, chosen, console)]
        )
    except WrongCall as error:
        print(f"python -m mpipc bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    show(runs, chosen, console)
    stem = arguments.plot or (arguments.json or Path("mpipc-bench")).with_suffix("")
    if files := draw(runs, chosen, stem):
        console.print(f"The plot is in {' and '.join(map(str, files))}.", highlight=False)
    return 0


def choose(patterns: list[str], known: dict[str, Scenario]) -> dict[str, Scenario]:
    """The scenarios that were asked for, all if none was."""
    if not patterns:
        return known
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise WrongCall(f"no scenario {pattern!r}; --list shows all")
    return {
        name: scenario
        for name, scenario in known.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def load(file: Path) -> Run:
    """Read a run."""
    try:
        return Run.load(file)
    except (OSError, ValueError) as error:
        raise WrongCall(str(error)) from None


def measure(arguments: argparse.Namespace, chosen: dict[str, Scenario], console: Console) -> Run:
    """Measure the scenarios, with a progress bar; write what there is after each."""
    plan = QUICK if arguments.quick else Plan()
    file: Path | None = arguments.json
    for output in (file, arguments.plot):
        if output and not output.parent.is_dir():
            raise WrongCall(f"no folder {output.parent}")
    try:
        sides, absent = find_sides(arguments.sides.split(","), arguments.start_method)
    except ValueError as error:
        raise WrongCall(str(error)) from None
    found = Run.begin(
        start_method=arguments.start_method,
        rounds=plan.rounds,
        seconds_per_sample=plan.seconds,
        versions={side.name: side.version for side in sides if side.version},
        absent=absent,
    )
    console.print(f"{Machine.current()}", highlight=False)
    for name, why in absent.items():
        console.print(f"[dim]without {name}: {escape(why)}[/]", highlight=False)
    columns = (
        TextColumn("{task.description:50}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    players = {name: _players(sides, scenario) for name, scenario in chosen.items()}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=sum(map(len, players.values())) * (plan.rounds + 1))
        for name, scenario in chosen.items():
            if not players[name]:
                continue

            def advance(side: str, name: str = name) -> None:
                bars.update(bar, advance=1, description=f"{name}: {side}")

            found.results.append(take_turns(scenario, players[name], plan, advance))
            if file:
                found.save(file)
    if file:
        console.print(f"All samples are in {file}.", highlight=False)
    return found


def _players(sides: list[Side], scenario: Scenario) -> list[Side]:
    return [side for side in sides if side.plays(scenario)]


def show(runs: list[Run], chosen: dict[str, Scenario], console: Console) -> None:
    """Print the table, and in words what is wrong."""
    console.print(table(runs, chosen))
    found = rows(runs, chosen)
    for row in found:
        for side, why in row.failed.items():
            first = why.partition("\n")[0]
            console.print(f"[red]{row.scenario.name}, {side}[/]: {escape(first)}", highlight=False)
    for verdict, text in ((MISSED, "miss their goals"), (BELOW, "are slower than stock: a bug")):
        names = [row.scenario.name for row in found if row.verdict == verdict]
        if names:
            console.print(f"{len(names)} {text}: {', '.join(names)}", highlight=False)


def compare(
    files: list[Path], known: dict[str, Scenario], tolerated: float, console: Console
) -> int:
    """Show what changed between two runs; 1 if something got slower."""
    old, new = map(load, files)
    for name in ("cpu", "cores", "python"):
        if old.machine.get(name) != new.machine.get(name):
            before, after = old.machine.get(name), new.machine.get(name)
            console.print(f"[yellow]not the same {name}: {before}, {after}[/]", highlight=False)
    found = changes(old, new, known, tolerated)
    if not found:
        raise WrongCall("the two runs have nothing in common")
    for change in found:
        style = "red" if change.slower else "dim"
        text = f"{change.scenario}, {change.side}: {change.factor:.2f} times as fast as before"
        console.print(f"[{style}]{text}[/]", highlight=False)
    slower = sum(change.slower for change in found)
    console.print(f"{slower} of {len(found)} got slower, beyond noise and {tolerated:.0%}")
    return 1 if slower else 0
