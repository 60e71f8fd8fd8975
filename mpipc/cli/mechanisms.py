"""Show which mechanisms work here, and if one does not, why not."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from mpipc._registry import PREFIX, MechanismSpec, mechanisms

# A column or a line for each: its title, and what to read of a row.
COLUMNS = (
    ("messages travel by", "messages"),
    ("locks and semaphores are", "locks"),
    ("memory is", "memory"),
    ("fileno() is", "pollable"),
)
PROBE = b"mpipc"


@dataclass
class Report:
    """A mechanism as it is here and now."""

    name: str
    works: bool
    why_not: str
    messages: str
    locks: str
    memory: str
    pollable: str
    unrelated: bool
    persistent: str
    when_killed: str
    limits: dict[str, Any] = field(default_factory=dict)


def report(spec: MechanismSpec) -> Report:
    """Try a mechanism: its limits, a message there and back, a lock, a value."""
    limits: dict[str, Any] = {}
    why_not = ""
    try:
        limits = import_module(spec.module).limits()
        _try(spec.name)
    except Exception as error:  # whatever it is, it is the answer
        why_not = f"{type(error).__name__}: {error}"
    columns = (*(name for _, name in COLUMNS), "unrelated", "persistent", "when_killed")
    return Report(
        name=spec.name,
        works=not why_not,
        why_not=why_not,
        limits=limits,
        **{name: getattr(spec, name) for name in columns},
    )


def _try(name: str) -> None:
    ctx: Any = multiprocessing.get_context(PREFIX + name)
    one, two = ctx.Pipe()
    with one, two:
        for sender, receiver in ((one, two), (two, one)):
            sender.send_bytes(PROBE)
            if not receiver.poll(1) or receiver.recv_bytes() != PROBE:
                raise OSError("a message was sent and did not arrive within a second")
    with ctx.Lock(), ctx.Semaphore(2):
        if ctx.Value("i", 7).value != 7:
            raise OSError("a shared value does not hold what was written")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``mechanisms``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; by default all")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the reports; 1 if one that was asked for by name does not work."""
    known = mechanisms()
    names = [name.removeprefix(PREFIX) for name in arguments.names]
    if unknown := [name for name in names if name not in known]:
        print(f"unknown mechanism {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    reports = [report(known[name]) for name in names or known]
    if arguments.json:
        print(json.dumps([asdict(each) for each in reports], indent=2))
    else:
        _show(reports)
    return int(bool(names) and not all(each.works for each in reports))


def _show(reports: list[Report]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("context", "works", *(title for title, _ in COLUMNS), show_lines=True)
    for each in reports:
        works = "[green]yes" if each.works else "[red]no"
        table.add_row(PREFIX + each.name, works, *(getattr(each, name) for _, name in COLUMNS))
    console = Console()
    console.print(table)
    for each in reports:
        limits = ", ".join(f"{name} {value}" for name, value in each.limits.items())
        lines = [
            f"[bold]{PREFIX + each.name}",
            *([f"  [red]does not work here:[/] {each.why_not}"] if each.why_not else []),
            f"  crosses unrelated processes: {'yes' if each.unrelated else 'no'}",
            f"  outlives its users in the kernel: {each.persistent or 'nothing'}",
            f"  when a process is killed: {each.when_killed}",
            f"  limits here: {limits or 'unknown'}",
        ]
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
