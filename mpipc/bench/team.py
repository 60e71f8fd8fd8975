"""Processes that are ready before the clock starts, and the processors they run on."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

# Where two parties run: the processor of each, or None for wherever the kernel likes.
Places = tuple[int | None, int | None]


def anywhere() -> Places:
    """Leave it to the kernel."""
    return None, None


def one_core() -> Places:
    """Both on the same processor."""
    first = min(os.sched_getaffinity(0))
    return first, first


def two_cores() -> Places:
    """Each on its own processor, not on two threads of one core where that can be avoided."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise RuntimeError("needs two processors, and this process may use only one")
    return first, next((other for other in others if not _same_core(first, other)), others[0])


def _same_core(one: int, other: int) -> bool:
    def siblings(cpu: int) -> str:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        return path.read_text() if path.exists() else str(cpu)

    return siblings(one) == siblings(other)


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep this thread, and those it starts, on a processor."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Team:
    """Processes of one side, which start their work together.

    Their orders and answers go through stock's pipes, whatever side is measured.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._members: list[tuple[Any, Any]] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process, link in self._members:
            if kind is not None:
                process.kill()
            process.join()
            link.close()

    def add(self, work: Callable[..., Any], *args: Any, core: int | None = None) -> int:
        """Start a process that will do the work; return its pid once it is ready to."""
        link, its_link = multiprocessing.Pipe()
        process = self._ctx.Process(target=_member, args=(its_link, core, work, args))
        process.start()
        its_link.close()
        self._members.append((process, link))
        self._answer(process, link)
        pid: int = process.pid
        return pid

    def go(self) -> None:
        """Let all begin."""
        for _, link in self._members:
            link.send(None)

    def results(self) -> list[Any]:
        """Wait for all; return what the work of each returned."""
        return [self._answer(process, link) for process, link in self._members]

    @staticmethod
    def _answer(process: Any, link: Any) -> Any:
        try:
            return link.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f"process {process.pid} ended without a result, with exit code {process.exitcode}"
            ) from None


def _member(link: Any, core: int | None, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with pinned(core):
        gc.disable()
        link.send(None)
        link.recv()
        link.send(work(*args))
