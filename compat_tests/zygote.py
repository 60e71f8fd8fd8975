"""Runs tests, each in a process forked from this one, which has loaded them and made nothing yet.

    python zygote.py CONTEXT START_METHOD SUITE...

The first line of output tells, as JSON, what there is. Then each line of input asks for a test,
{"id": ..., "limit": seconds}, and is answered by one line. `harness.py` is the other side.

Children that tests spawn import this file as their main module.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import routing
import suites

PR_SET_CHILD_SUBREAPER = 36
TAIL = 6000  # bytes of a test's output that are worth showing
STACKS = 3.0  # seconds for the stacks of a test that is out of time
PATIENCE = 5.0  # seconds for resource tracker and fork server to notice that the test has ended


def main(context: str, method: str, *names: str) -> int:
    # Whatever is printed while loading must not look like an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    _set_up()
    offered = []
    if context != "stock":
        # Before the suites are imported, as a program would.
        import mpipc

        offered = routing.watch(context)
        mpipc.install(context)
    cases, missing = suites.load(names, method)
    _be_fresh()
    hello = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "tests": list(cases),
        "missing": missing,
        "offered": offered,
    }
    _answer(answers, hello)
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(tempfile.mkdtemp(prefix="compat-"))
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _run(cases[request["id"]], folder)
            # The interpreter ends the usual way, with the finalizers of multiprocessing.
            return 0
        answer = _watch(pid, request["limit"], folder)
        _answer(answers, {**answer, "seconds": round(time.monotonic() - start, 3)})
        _remove(folder)
    return 0


def _answer(answers: int, value: dict[str, Any]) -> None:
    with open(answers, "w", closefd=False) as stream:
        print(json.dumps(value), file=stream)


def _remove(folder: Path) -> None:
    """Remove a test's folder, and first what processes that were killed have left under names."""
    work = folder / "work"
    if any(work.glob("mpipc-*")):
        command = [sys.executable, "-m", "mpipc", "clean"]
        environment = {**os.environ, "TMPDIR": str(work)}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(folder, ignore_errors=True)


def _set_up() -> None:
    faulthandler.enable()
    os.environ["PYTHONFAULTHANDLER"] = "1"
    # A fork server has its modules to load from there; most versions do not hand it sys.path.
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    # A shell's background job ignores it; the tests do not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # What a test leaves behind becomes our child, whichever session it is in.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _be_fresh() -> None:
    """Be like an interpreter that has only imported the tests."""
    from multiprocessing import resource_tracker

    # Loading starts one where the default start method needs it.
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    assert threading.active_count() == 1, threading.enumerate()
    assert not _children()


def _run(case: unittest.TestCase, folder: Path) -> None:
    """In the test's own process: run it and leave the result in the folder."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    os.environ["TMPDIR"] = tempfile.tempdir = str(work)
    from test import support  # type: ignore[import-not-found]

    support.environment_altered = False
    result = unittest.TestResult()
    _Suite([case], folder / "touched").run(result)

    found = [
        *(("errored", text) for _, text in result.errors),
        *(("failed", text) for _, text in result.failures),
        *(("failed", "unexpected success") for _ in result.unexpectedSuccesses),
        *(("skipped", text) for _, text in result.skipped),
    ] or [("passed", "") if result.testsRun else ("errored", "the test did not run")]
    # The worst decides; more than one there is with subtests and fixtures.
    outcome = found[0][0]
    text = "\n".join(text for _, text in found)
    # Such as threads or processes that were still there; CPython's own CI looks at it, too.
    altered = support.environment_altered
    (folder / "result").write_text(
        json.dumps({"outcome": outcome, "text": text, "altered": altered})
    )


class _Suite(unittest.TestSuite):
    """Records what is made from when the fixture that all tests of a module have is done."""

    def __init__(self, tests: list[unittest.TestCase], touched: Path) -> None:
        super().__init__(tests)
        self._touched = touched

    def _handleModuleFixture(self, test: unittest.TestCase, result: unittest.TestResult) -> None:
        super()._handleModuleFixture(test, result)  # type: ignore[misc]
        routing.record_in(self._touched)


def _watch(pid: int, limit: float, folder: Path) -> dict[str, Any]:
    """Wait for a test's process and for all that it started; say how the test went."""
    in_time = _ends(pid, limit)
    if not in_time:
        os.killpg(pid, signal.SIGABRT)
        if not _ends(pid, STACKS):
            os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = _reap(PATIENCE if in_time else 0)
    result = {"outcome": "not ready", "text": ""}
    if (folder / "result").exists():
        result = json.loads((folder / "result").read_text())
    reason = _reason(result["text"])
    # How its process ended counts for more than what became of the test in it.
    if not in_time:
        reason = f"not over after {limit:g} s, the test was {result['outcome']}"
        result["outcome"] = "timed out"
    elif status or result["outcome"] == "not ready":
        reason = f"{_describe(status)}, the test was {result['outcome']}"
        result["outcome"] = "errored"
    return {
        **result,
        "reason": reason,
        "output": _tail(folder / "output"),
        "touched": sorted(set(_tail(folder / "touched").split())),
        "left": left,
    }


def _ends(pid: int, seconds: float) -> bool:
    """Wait for the end of a child, but no longer than somebody waits for our answer."""
    fd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(0, 0)  # only tells that the other side has hung up
        return any(ready == fd for ready, _ in poller.poll(max(seconds, 0) * 1000))
    finally:
        os.close(fd)


def _reap(patience: float) -> int:
    """Wait for what the test left behind, then kill it; return how many had to be killed."""
    deadline = time.monotonic() + patience
    killed = 0
    # Whose parent ends becomes our child, so that in the end all have been here.
    while children := _children():
        for pid in children:
            if not _ends(pid, deadline - time.monotonic()):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            os.waitpid(pid, 0)
    return killed


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _tail(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL))
        return stream.read().decode(errors="replace")


def _reason(text: str) -> str:
    """Return the line of a traceback that names the exception, fit to be published."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(: |$)", line)]
    line = (named or lines or [""])[-1]
    for path, name in (
        (sys.base_prefix, "<python>"),
        (sys.prefix, "<python>"),
        (str(Path(__file__).resolve().parent.parent), "<mpipc>"),
        (tempfile.gettempdir(), "<tmp>"),
        (str(Path.home()), "~"),
        (platform.node(), "<host>"),
    ):
        line = line.replace(path, name) if len(path) > 1 else line
    return line[:200]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
