"""Run an unchanged program with mpipc in the place of multiprocessing.

The program and its child processes find their own arguments, their own __main__ and everything
else as if Python had been called with them alone.
"""

from __future__ import annotations

import argparse
import builtins
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pkgutil import get_importer
from types import ModuleType, TracebackType
from typing import Any

from mpipc import context_names, install

PROGRAM = "python -m mpipc run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = f"{PROGRAM} [--context NAME] (SCRIPT | -m MODULE) [ARGUMENT ...]"
    parser.add_argument(
        "--context",
        metavar="NAME",
        help=f"where objects come from: {', '.join(context_names())} "
        "(default: the environment variable MPIPC_CONTEXT, else mpipc-shm)",
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, not a file")
    parser.add_argument("program", metavar="SCRIPT | MODULE", help="what to run")
    parser.add_argument(
        "arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="given to the program"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the program; its exceptions are the interpreter's to handle."""
    try:
        install(arguments.context)
    except ValueError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    main = ModuleType("__main__")
    # Under the second name, which importing multiprocessing gave to ours, children know it.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    # As Python sets them for a script; for a module, runpy does.
    vars(main).update(__builtins__=builtins, __annotations__={})
    program: str = arguments.program
    sys.argv = ["-m" if arguments.module else program, *arguments.arguments]
    try:
        if arguments.module:
            _run_module(program)
        elif get_importer(program) is not None:
            # A folder or a zip file: its __main__.py.
            _replace_first_path(os.path.abspath(program))
            _run_module("__main__", alter_argv=False)
        else:
            return _run_script(program, main)
    except BaseException:
        # Only now, since the program may have set a hook of its own.
        sys.excepthook = _trimmed(sys.excepthook)
        raise
    return 0


def _run_module(name: str, alter_argv: bool = True) -> None:
    """What ``python -m`` does, runpy's frames in tracebacks included."""
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_script(script: str, main: ModuleType) -> int:
    path = os.path.abspath(script)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: can't open file {path!r}: {reason}", file=sys.stderr)
        return 2
    _replace_first_path(os.path.dirname(os.path.realpath(path)))
    vars(main).update(__file__=path, __loader__=SourceFileLoader("__main__", path), __cached__=None)
    exec(compile(source, path, "exec", dont_inherit=True), vars(main))
    return 0


def _replace_first_path(path: str) -> None:
    """Put the program's folder where Python has put ours, unless it was told to put none there."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = path


def _trimmed(hook: Any) -> Any:
    """An excepthook that leaves the frames below the program out of the traceback."""

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        program = frame = traceback
        while frame is not None:
            ours = frame.tb_frame.f_code.co_filename == __file__
            frame = frame.tb_next
            if ours:
                program = frame
        hook(kind, error.with_traceback(program), program)

    return excepthook
