"""Run five programs with stock multiprocessing and with mpipc, compare their results and times.

Each run is a process of its own, started as a user would start the program, and stock and mpipc
take turns. A time is that of the program's main function, its processes' starts and ends
included; the table shows the median of the runs.
"""

from __future__ import annotations

import argparse
import json
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
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mpipc.cli.compare import first_difference
from mpipc.cli.machine import Machine

START_METHODS = ("fork", "spawn", "forkserver")


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
    parser.add_argument(
        "--start-method",
        choices=START_METHODS,
        default=multiprocessing.get_context().get_start_method(),
        help="how processes start (default: the platform's, %(default)s)",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=3, metavar="N", help="runs of each (default: 3)"
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
    contender: str = arguments.context
    if not contender.endswith(START_METHODS):
        contender = f"{contender}-{method}"
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
    runs = "one run" if arguments.repeat == 1 else f"{arguments.repeat} runs"
    console.print(
        f"[bold]{what}, {runs} each with stock {method} and with {contender}, "
        f"in turn[/]\n[dim]{machine}[/]\n",
        highlight=False,
    )
    outcomes = compare(programs, method, contender, arguments.repeat, arguments.timeout, console)
    console.print(results_table(outcomes, method, contender, arguments.repeat))
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
            "repeat": arguments.repeat,
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


def compare(
    programs: list[Program],
    method: str,
    contender: str,
    repeat: int,
    timeout: float,
    console: Console,
) -> list[Outcome]:
    """Run the programs one after the other, stock and contender in turn.

    Returns
    -------
    list of Outcome
        One for each program; a program that fails once is not run again.
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
            outcome = Outcome(program, Side(method), Side(contender))
            outcomes.append(outcome)
            bar = bars.add_task(program.name, total=2 * repeat, doing="")
            turns = [outcome.stock, outcome.contender] * repeat
            for turn, side in enumerate(turns):
                bars.update(bar, doing=f"{turn // 2 + 1}/{repeat} {side.context}")

                def show(fraction: float, bar: Any = bar, turn: int = turn) -> None:
                    bars.update(bar, completed=turn + fraction)

                outcome.failure = _take_turn(outcome, side, timeout, show)
                if outcome.failure is not None:
                    break
            ended = "failed" if outcome.failure else f"{outcome.ratio:.2f} times as fast"
            bars.update(bar, completed=2 * repeat, doing=ended)
            if not console.is_terminal:
                console.print(f"{program.name}: {ended}", highlight=False)
    return outcomes


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


def results_table(outcomes: list[Outcome], method: str, contender: str, repeat: int) -> Table:
    """The seconds and ratios of all programs."""
    runs = "one run of each" if repeat == 1 else f"median of {repeat} runs of each"
    table = Table(title=f"Seconds with start method {method}, {runs}")
    table.add_column("program", no_wrap=True)
    table.add_column("leans on")
    table.add_column("stock", justify="right")
    table.add_column(contender.removesuffix(f"-{method}"), justify="right")
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
