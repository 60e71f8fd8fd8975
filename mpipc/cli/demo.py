"""Run five programs with stock multiprocessing and with mpipc, compare their results and times.

Each run is a process of its own, started as a user would start the program, and stock and mpipc
take turns. A time is that of the program's main function, its processes' starts and ends
included; the table shows the median of the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from mpipc.cli.compare import first_difference
from mpipc.cli.machine import Machine
from mpipc.cli.sides import add_start_method, with_start_method

# Without --repeat: so many rounds, fewer where a program would take more seconds than this.
ROUNDS = 3
BUDGET = 22.0


@dataclass(frozen=True)
class Program:
    """A program of `examples` and what it leans on."""

    name: str
    leans_on: str


PROGRAMS = (
    Program("word_count", "Queue, small parts"),
    Program("frame_pipeline", "Queue, 6 MiB frames"),
    Program("simulation", "Pipe, latency"),
    Program("shared_histogram", "Value, Array, Lock"),
    Program("pool_map", "Pool, small tasks"),
)


@dataclass(frozen=True)
class Plan:
    """What to run each program on, how often at most, and for how long."""

    stock: str
    contender: str
    rounds: int
    # For all rounds of a program, foreseen before each one; and for one run, which is then killed.
    budget: float
    timeout: float


class RunFailed(Exception):
    """A run that ended without a result; the text says how."""


@dataclass
class Side:
    """The runs of one program on one context."""

    context: str
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        median = self.median if self.seconds else None
        return {"context": self.context, "seconds": self.seconds, "median": median}


@dataclass
class Outcome:
    """What became of one program."""

    program: Program
    stock: Side
    contender: Side
    # Stock's first result, which every later one must equal; and the program's line on it.
    expected: Any = None
    summary: str = ""
    failure: str | None = None

    @property
    def ratio(self) -> float:
        """How many times faster than stock."""
        return self.stock.median / self.contender.median

    def as_json(self) -> dict[str, Any]:
        """The figures, without the results."""
        return {
            "name": self.program.name,
            "stock": self.stock.as_json(),
            "contender": self.contender.as_json(),
            "ratio": self.ratio if self.failure is None else None,
            "result": self.summary,
            "failure": self.failure,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``demo``."""
    names = [program.name for program in PROGRAMS]
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help=f"run only these of {', '.join(names)}"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures and the machine to FILE"
    )
    add_start_method(parser)
    parser.add_argument(
        "--repeat",
        type=_positive,
        metavar="N",
        help=f"runs of each (default: {ROUNDS}, fewer on a slow machine)",
    )
    parser.add_argument(
        "--context",
        default="mpipc-shm",
        metavar="NAME",
        help="compare stock with this context instead of %(default)s; a stock name such as fork "
        "shows how noisy the machine is",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=60,
        metavar="SECONDS",
        help="give up on a run that takes longer (default: 60)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the programs; return 1 if one failed or its results differ."""
    known = {program.name: program for program in PROGRAMS}
    if unknown := [name for name in arguments.names if name not in known]:
        print(
            f"python -m mpipc demo: no program {unknown[0]!r}; there are {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    programs = [known[name] for name in arguments.names] or list(PROGRAMS)
    method: str = arguments.start_method
    contender = with_start_method(arguments.context, method)
    try:
        import mpipc  # noqa: F401  # registers its contexts

        multiprocessing.get_context(contender)
    except ValueError as error:
        print(f"python -m mpipc demo: {error}", file=sys.stderr)
        return 2

    if arguments.json and not arguments.json.parent.is_dir():
        print(f"python -m mpipc demo: no folder {arguments.json.parent}", file=sys.stderr)
        return 2

    console = Console()
    machine = Machine.current()
    what = "1 program" if len(programs) == 1 else f"{len(programs)} programs"
    console.print(
        f"[bold]{what}, with stock {method} and with {contender} in turn[/]\n[dim]{machine}[/]\n",
        highlight=False,
    )
    plan = Plan(
        stock=method,
        contender=contender,
        rounds=arguments.repeat or ROUNDS,
        budget=math.inf if arguments.repeat else BUDGET,
        timeout=arguments.timeout,
    )
    try:
        outcomes = compare(programs, plan, console)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    console.print(results_table(outcomes, plan))
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in outcomes:
        colour, text = ("red", outcome.failure) if outcome.failure else ("green", outcome.summary)
        console.print(
            f"[{colour}]{outcome.program.name}[/]: {escape(text)}", highlight=False, soft_wrap=True
        )
    if not failed:
        console.print("\nEvery program gave the same result in every run, item by item.")
    if arguments.json:
        figures = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": asdict(machine),
            "start_method": method,
            "programs": [outcome.as_json() for outcome in outcomes],
        }
        try:
            arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        except OSError as error:
            print(f"cannot write the figures: {error}", file=sys.stderr)
            return 1
        console.print(f"The figures are in {arguments.json}.", highlight=False)
    console.print(NEXT_STEPS, soft_wrap=True)
    return 1 if failed else 0


NEXT_STEPS = """
[bold]Your own program[/] switches in two lines:

    import mpipc
    ctx = multiprocessing.get_context("mpipc-shm")  # then ctx.Queue(), ...

README.md has the whole tour, ARCHITECTURE.md how it works and survives crashes,
examples/ the programs that just ran. To run one of them by itself:

    python -m mpipc.examples.word_count --context mpipc-shm
"""


def compare(programs: list[Program], plan: Plan, console: Console) -> list[Outcome]:
    """Run the programs one after the other, with a progress bar for each.

    Returns
    -------
    list of Outcome
        One for each program.
    """
    outcomes = []
    columns = (
        TextColumn("{task.description:17}"),
        BarColumn(),
        TextColumn("{task.fields[doing]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        for program in programs:
            bar = bars.add_task(program.name, total=2 * plan.rounds, doing="")

            def show(turn: int, side: Side, fraction: float, bar: TaskID = bar) -> None:
                bars.update(bar, completed=turn + fraction, doing=side.context)

            outcome = compare_program(program, plan, show)
            outcomes.append(outcome)
            ended = "failed" if outcome.failure else f"{outcome.ratio:.2f} times as fast"
            bars.update(bar, completed=2 * plan.rounds, doing=ended)
            if not console.is_terminal:
                console.print(f"{program.name}: {ended}", highlight=False)
    return outcomes


def compare_program(
    program: Program, plan: Plan, show: Callable[[int, Side, float], None]
) -> Outcome:
    """Run a program on stock and on the contender in turn; stop at the first failure.

    Parameters
    ----------
    program : Program
        What to run.
    plan : Plan
        On what, and how often.
    show : callable
        Called with the number of the turn, its side, and the fraction of it that is done.

    Returns
    -------
    Outcome
        Times and results.
    """
    outcome = Outcome(program, Side(plan.stock), Side(plan.contender))
    began = time.monotonic()
    for done in range(plan.rounds):
        if done and (time.monotonic() - began) / done * (done + 1) > plan.budget:
            break
        for turn, side in enumerate((outcome.stock, outcome.contender), start=2 * done):
            show_turn = partial(show, turn, side)
            show_turn(0.0)
            outcome.failure = _take_turn(outcome, side, plan.timeout, show_turn)
            if outcome.failure is not None:
                return outcome
    return outcome


def _take_turn(
    outcome: Outcome, side: Side, timeout: float, show: Callable[[float], None]
) -> str | None:
    """Run the program once for a side; return what went wrong."""
    try:
        seconds, result, summary = run_program(outcome.program.name, side.context, timeout, show)
    except RunFailed as failure:
        return f"on {side.context}, the program {failure}"
    side.seconds.append(round(seconds, 4))
    if outcome.expected is None:
        outcome.expected, outcome.summary = result, summary
        return None
    difference = first_difference(outcome.expected, result)
    return difference and f"another result on {side.context} than on stock: {difference}"


def run_program(
    name: str, context: str, timeout: float, show: Callable[[float], None]
) -> tuple[float, Any, str]:
    """Run a program in a process of its own.

    Parameters
    ----------
    name : str
        Its module in `mpipc.examples`.
    context : str
        What it passes to `multiprocessing.get_context`.
    timeout : float
        After how many seconds it and all its children are killed.
    show : callable
        Called with the fraction done, as the program reports it.

    Returns
    -------
    tuple
        Seconds, result, and the program's own line on the result.

    Raises
    ------
    RunFailed
        When it crashes, hangs, or ends without a result.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, tempfile.TemporaryFile() as errors:
        with writer:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"mpipc.examples.{name}"),
                    *("--context", context, "--report-to", str(writer.fileno())),
                ],
                pass_fds=[writer.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                # A group of its own, so that a hung program goes with all its children.
                start_new_session=True,
            )
        report = None
        try:
            report = _follow(process, reader, timeout, show)
        finally:
            if report is None:
                # It is not reaped yet, so the group's number is still its own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        if status == 0 and report is not None:
            return report
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        how = f"died of signal {-status}, {signal.strsignal(-status)}"
    else:
        how = f"ended with status {status}" if status else "ended without a result"
    raise RunFailed(how + (f" ({lines[-1]})" if lines else ""))


def _follow(
    process: subprocess.Popen[bytes],
    reader: Connection[Any, Any],
    timeout: float,
    show: Callable[[float], None],
) -> tuple[float, Any, str] | None:
    """Receive reports until the process ends; return the last one, which has the result."""
    deadline = time.monotonic() + timeout
    # Children inherit the pipe, so that its end of file may come late: watch the process itself.
    pidfd = os.pidfd_open(process.pid)
    sources: list[Any] = [reader, pidfd]
    try:
        report = None
        while ready := wait(sources, max(0.0, deadline - time.monotonic())):
            if reader not in ready:
                return report
            try:
                match reader.recv():
                    case done, total:
                        show(done / total)
                    case seconds, result, summary:
                        report = seconds, result, summary
            except EOFError:
                sources.remove(reader)
        raise RunFailed(f"was not done after {timeout:.0f} s and was killed")
    finally:
        os.close(pidfd)


def results_table(outcomes: list[Outcome], plan: Plan) -> Table:
    """The seconds and ratios of all programs."""
    rounds = sorted({len(outcome.contender.seconds) for outcome in outcomes if not outcome.failure})
    if rounds and rounds != [1]:
        how = f"median of {' to '.join(str(count) for count in rounds)} runs"
    else:
        how = "one run of each"
    table = Table(title=f"Seconds with start method {plan.stock}, {how}")
    table.add_column("program", no_wrap=True)
    table.add_column("leans on")
    table.add_column("stock", justify="right")
    table.add_column(plan.contender.removesuffix(f"-{plan.stock}"), justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("result")
    for outcome in outcomes:
        cells = [outcome.program.name, outcome.program.leans_on]
        if outcome.failure is None:
            cells += [f"{outcome.stock.median:.2f}", f"{outcome.contender.median:.2f}"]
            colour = "green" if outcome.ratio >= 1 else "red"
            cells += [f"[{colour}]{outcome.ratio:.2f}[/]", "same"]
        else:
            cells += ["", "", "", "[bold red]failed[/]"]
        table.add_row(*cells)
    return table


def _positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
