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
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from pkgutil import get_importer, read_code
from types import ModuleType, TracebackType
from typing import Any

from mpipc import install
from mpipc._registry import MECHANISMS, PREFIX

PROGRAM = "python -m mpipc run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = f"{PROGRAM} [--context NAME] (SCRIPT | -m MODULE) [ARGUMENT ...]"
    parser.add_argument(
        "--context",
        metavar="NAME",
        # Those of other packages are not asked for: finding them takes every run milliseconds.
        help=f"where objects come from: {', '.join(PREFIX + name for name in MECHANISMS)}, "
        "each also with -fork, -spawn or -forkserver behind it "
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
    vars(main)["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        vars(main)["__annotations__"] = {}
    program: str = arguments.program
    sys.argv = ["-m" if arguments.module else program, *arguments.arguments]
    try:
        if arguments.module:
            _run_module(program)
        elif program == "-":
            exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), vars(main))
        elif get_importer(program) is not None:
            # A folder or a zip file: its __main__.py.
            _forget_our_folder()
            sys.path.insert(0, os.path.abspath(program))
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
            # A compiled script, as `python script.pyc` takes it, or else its source.
            code = read_code(file)
            file.seek(0)
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: can't open file {path!r}: {reason}", file=sys.stderr)
        return 2
    if _forget_our_folder():
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    loader = SourcelessFileLoader if code else SourceFileLoader
    # As Python sets them for a script; for a module, runpy does.
    vars(main).update(__file__=path, __loader__=loader("__main__", path))
    if sys.version_info < (3, 15):
        vars(main)["__cached__"] = None
    exec(code or compile(source, path, "exec", dont_inherit=True), vars(main))
    return 0


def _forget_our_folder() -> bool:
    """Take what Python has put first on the path off it; False if it was told to put nothing."""
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        return False
    del sys.path[0]
    return True


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
