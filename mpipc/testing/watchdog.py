"""A limit on how long something may take, which says what hung."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from types import FrameType, TracebackType

from mpipc.testing.processes import ProcessInfo, descendants, service_pids


class WatchdogExpired(AssertionError):
    """Something took longer than its watchdog allowed; the message has every stack."""


def stacks() -> str:
    """Return the Python stacks of all threads of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )


def kill(processes: list[ProcessInfo], patience: float = 1.0) -> None:
    """End the processes: SIGABRT, so that faulthandler can show their stacks, then SIGKILL."""
    for signum in (signal.SIGABRT, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signum)
        if signum == signal.SIGABRT:
            time.sleep(patience)


class watchdog(contextlib.ContextDecorator):  # noqa: N801  (reads as a statement)
    """Fail a block that has not ended after `seconds`; for the main thread.

    On expiry the stacks of this process and the state of its descendants are collected, the
    descendants are ended, and `WatchdogExpired` is raised in the block. Descendants with
    faulthandler on (PYTHONFAULTHANDLER=1) write their stacks to their stderr. A block that not
    even a signal gets out of within `grace` seconds more ends the whole process, after its
    stacks went to the descriptor `stderr`.
    """

    def __init__(self, seconds: float, *, grace: float = 10.0, stderr: int = 2) -> None:
        self._seconds = seconds
        self._grace = grace
        self._stderr = stderr
        self._report = ""

    def __enter__(self) -> watchdog:
        self._main = threading.get_ident()
        self._done = threading.Event()
        self._previous = signal.signal(signal.SIGALRM, self._raise)
        self._thread = threading.Thread(target=self._watch, name="mpipc-watchdog", daemon=True)
        self._thread.start()
        faulthandler.dump_traceback_later(self._seconds + self._grace, exit=True, file=self._stderr)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self._previous)
        # The end of the descendants may have let the block go on as if all were well.
        if self._report and not isinstance(error, WatchdogExpired):
            raise WatchdogExpired(self._report) from error

    def _watch(self) -> None:
        if self._done.wait(self._seconds):
            return
        # The services clean up after the others: ending them would leak what is to be seen.
        keep = service_pids()
        below = [process for process in descendants() if process.pid not in keep]
        self._report = "\n".join(
            [f"not done after {self._seconds} s", stacks(), "descendants:"]
            + [process.describe() for process in below]
        )
        kill(below)
        if not self._done.is_set():
            signal.pthread_kill(self._main, signal.SIGALRM)

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        raise WatchdogExpired(self._report)
