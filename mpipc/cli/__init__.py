"""The command line, ``python -m mpipc COMMAND``.

A command is a row in `COMMANDS` and a module with two functions, `add_arguments` and `run`. The
module is imported only once its command is chosen, so that no command pays for another's imports.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from mpipc import __version__


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work; return the exit status."""


@dataclass(frozen=True)
class Command:
    """A command's name, what it does in a line, its module, and the packages that this needs."""

    name: str
    summary: str
    module: str
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


COMMANDS = (
    Command(
        name="demo",
        summary="run five programs with stock multiprocessing and with mpipc; compare",
        module="mpipc.cli.demo",
        needs=("rich", "numpy"),
    ),
    Command(
        name="bench",
        summary="measure mpipc, stock multiprocessing and other packages, side by side",
        module="mpipc.cli.bench",
        needs=("rich", "numpy", "matplotlib"),
    ),
    Command(
        name="mechanisms",
        summary="show which kernel mechanisms work here, and why not",
        module="mpipc.cli.mechanisms",
        needs=("rich",),
    ),
    Command(
        name="run",
        summary="run an unchanged program with mpipc in the place of multiprocessing",
        module="mpipc.cli.run",
    ),
    Command(
        name="clean",
        summary="remove what killed programs left in the kernel",
        module="mpipc.cli.clean",
    ),
)

PROGRAM = "python -m mpipc"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The command and its arguments, by default those of the process.

    Returns
    -------
    int
        The exit status: 0 for success, 1 for a failed command, 2 for a wrong call.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A drop-in multiprocessing backend on shared memory.",
        epilog="commands:\n"
        + "\n".join(f"  {command.name:10}  {command.summary}" for command in COMMANDS)
        + f"\n\n`{PROGRAM} COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mpipc {__version__}")
    commands = {command.name: command for command in COMMANDS}
    parser.add_argument("command", metavar="COMMAND", choices=commands, help="see below")
    parser.add_argument(
        "arguments", metavar="...", nargs=argparse.REMAINDER, help=argparse.SUPPRESS
    )
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    chosen = parser.parse_args(argv)

    command = commands[chosen.command]
    if missing := command.missing():
        print(
            f"{PROGRAM} {command.name} needs {' and '.join(missing)}: pip install 'mpipc[cli]'",
            file=sys.stderr,
        )
        return 2
    module = cast(CommandModule, importlib.import_module(command.module))
    command_parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {command.name}", description=module.__doc__
    )
    module.add_arguments(command_parser)
    return module.run(command_parser.parse_args(chosen.arguments))
