"""The processes below this one, as /proc shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


def _read(path: Path) -> str:
    """Return the text of a file of /proc, or "" when its process or our right to it is gone."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class ProcessInfo:
    """One process at one moment."""

    pid: int
    parent: int
    state: str
    name: str

    @property
    def zombie(self) -> bool:
        """Whether it has ended and nobody has waited for it."""
        return self.state == "Z"

    def __str__(self) -> str:
        command = _read(_PROC / str(self.pid) / "cmdline").replace("\0", " ").strip()
        return (
            f"pid {self.pid} (child of {self.parent}, state {self.state}): {command or self.name}"
        )

    def describe(self) -> str:
        """Return what it is and where each of its threads waits in the kernel."""
        lines = [str(self)]
        for task in sorted((_PROC / str(self.pid) / "task").glob("*")):
            where = _read(task / "wchan").strip()
            lines.append(f"  thread {task.name}: waits in {where if where != '0' else '(running)'}")
            # Only root may read the kernel's stack; without it wchan has to do.
            lines += [f"    {line}" for line in _read(task / "stack").splitlines()]
        return "\n".join(lines)


def _all() -> Iterator[ProcessInfo]:
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (stat := _read(_PROC / entry / "stat")):
            # The name stands in parentheses and may contain some itself.
            head, _, tail = stat.rpartition(")")
            state, parent = tail.split()[:2]
            yield ProcessInfo(int(entry), int(parent), state, head.partition("(")[2])


def descendants(pid: int | None = None) -> list[ProcessInfo]:
    """Return the living and the unwaited-for processes below `pid` (this one), parents first."""
    children: dict[int, list[ProcessInfo]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found: list[ProcessInfo] = []
    parents = [os.getpid() if pid is None else pid]
    for parent in parents:
        found += children.get(parent, [])
        parents += [child.pid for child in children.get(parent, [])]
    return found


def service_pids() -> set[int]:
    """Return the processes that multiprocessing itself keeps until the program ends."""
    pids = set()
    if tracker := sys.modules.get("multiprocessing.resource_tracker"):
        pids.add(tracker._resource_tracker._pid)
    if forkserver := sys.modules.get("multiprocessing.forkserver"):
        pids.add(forkserver._forkserver._forkserver_pid)
    return pids - {None}
