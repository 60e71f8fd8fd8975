"""What both front ends use: zygotes to ask for tests, and results to tell about."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reasons

HERE = Path(__file__).resolve().parent
LIMIT = 60.0  # seconds for one test; the slowest takes 7 with stock
BAD = ("failed", "errored", "timed out")
OUTCOMES = ("passed", "skipped", *BAD)  # from good to bad


@dataclass(frozen=True)
class Result:
    """How a test went."""

    id: str
    outcome: str  # one of OUTCOMES
    reason: str = ""  # one line
    seconds: float = 0.0
    touched: tuple[str, ...] = ()  # our names that it made
    left: int = 0  # processes that it left behind
    altered: bool = False  # as `python -m test --fail-env-changed` means it
    details: str = ""  # traceback and output
    context: str = ""  # on which it ran

    @property
    def bad(self) -> bool:
        return self.outcome in BAD

    @property
    def excuse(self) -> str:
        """Why it does not count if it is bad, or nothing."""
        return reasons.cause(self.id, self.context)

    def to_json(self) -> dict[str, Any]:
        """Return all but the details, which name the machine's paths, and the time it took."""
        fields = dataclasses.asdict(self)
        del fields["id"], fields["details"], fields["seconds"], fields["context"]
        return {name: value for name, value in fields.items() if value not in ("", 0, ())}


class Zygote:
    """A running `zygote.py`; for one thread. It starts at once and again if it dies."""

    def __init__(self, context: str, method: str, suites: Iterable[str]) -> None:
        self._context = context
        self._command = [sys.executable, str(HERE / "zygote.py"), context, method, *suites]
        self._start()

    def _start(self) -> None:
        # Its own session: an interrupt at the terminal is for us, and it ends when we hang up.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        hello = self._read()
        if not hello:
            raise RuntimeError(f"the zygote did not start, exit status {self._process.wait()}")
        self.tests: list[str] = hello.pop("tests")
        self.missing: list[str] = hello.pop("missing")
        self.offered: list[str] = hello.pop("offered")
        self.about: dict[str, str] = hello

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else {}

    def run(self, test: str, limit: float = LIMIT) -> Result:
        """Run a test in a process of its own."""
        assert self._process.stdin
        # If it is dead, there is no answer either.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"id": test, "limit": limit}) + "\n")
            self._process.stdin.flush()
        answer = self._read()
        if not answer:
            reason = f"the zygote died, exit status {self._process.wait()}"
            self._start()
            return Result(test, "errored", reason, context=self._context)
        text, output = answer.pop("text"), answer.pop("output")
        details = "\n".join(part for part in (answer["reason"], text, output) if part)
        return Result(
            test,
            touched=tuple(answer.pop("touched")),
            details=details,
            context=self._context,
            **answer,
        )

    def close(self) -> None:
        """End it, with the test that it may be running."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def run_all(zygotes: list[Zygote], tests: Iterable[str], limit: float) -> Iterator[Result]:
    """Run tests side by side, one in each zygote, and yield the results as they come."""
    idle: queue.SimpleQueue[Zygote] = queue.SimpleQueue()
    for zygote in zygotes:
        idle.put(zygote)

    def run(test: str) -> Result:
        zygote = idle.get()
        try:
            return zygote.run(test, limit)
        finally:
            idle.put(zygote)

    pool = ThreadPoolExecutor(len(zygotes))
    try:
        for future in as_completed([pool.submit(run, test) for test in tests]):
            yield future.result()
    finally:
        # The running ones end when their zygotes are closed.
        pool.shutdown(wait=False, cancel_futures=True)


def matches(test: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs fits the whole id."""
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)


def read_patterns(file: Path) -> list[str]:
    """Return the globs of a file, one on a line; # starts a comment."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def worse(results: Mapping[str, Result], baseline: Mapping[str, Result]) -> list[str]:
    """Return a line for each test of the baseline that now went worse, or did not run at all."""
    lines = []
    for test, before in baseline.items():
        now = results.get(test)
        if now is None:
            lines.append(f"{test}: missing, {before.outcome} in the baseline")
        elif now.bad and now.excuse:
            continue
        elif not before.bad and OUTCOMES.index(now.outcome) > OUTCOMES.index(before.outcome):
            lines.append(f"{test}: {now.outcome}, {before.outcome} in the baseline: {now.reason}")
    return lines
