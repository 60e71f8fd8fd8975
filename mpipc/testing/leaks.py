"""What a process holds: descriptors, mappings, shared memory, System V ids, children, threads.

Take a `snapshot` before and after; `diff` says what is new. `settle` waits a bounded time for
what ends by itself (children, threads, finalizers), `no_leaks` does both around a block.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpipc.testing.processes import descendants, service_pids

_SHM = Path("/dev/shm")
_SYSTEM_V = {"msg": "msqid", "sem": "semid", "shm": "shmid"}

# A process keeps its current small arena for the next Value or Array, as malloc keeps pages.
_KEPT = {"/memfd:mpipc-arena (deleted)": 1}


class LeakError(AssertionError):
    """Something was left behind; the message has one line for each."""


@dataclass(frozen=True)
class Snapshot:
    """What this process held at one moment."""

    descriptors: Counter[str]
    mappings: Counter[str]
    shared_memory: frozenset[str]
    system_v: frozenset[str]
    processes: frozenset[str]
    threads: frozenset[str]

    def diff(self, later: Snapshot) -> list[str]:
        """Return a line for each thing that `later` has and this one has not."""
        lines = []
        for what in ("descriptors", "mappings"):
            before, after = getattr(self, what), getattr(later, what)
            for name, count in sorted(after.items()):
                if (more := count - max(before[name], _KEPT.get(name, 0))) > 0:
                    lines.append(f"{what}: {more} more of {name}")
        for what in ("shared_memory", "system_v", "processes", "threads"):
            new = getattr(later, what) - getattr(self, what)
            lines += [f"{what}: {name}" for name in sorted(new)]
        return lines


def snapshot() -> Snapshot:
    """Return what this process holds now, without what multiprocessing keeps for good."""
    return Snapshot(
        descriptors=_descriptors(),
        mappings=_mappings(),
        shared_memory=frozenset(entry.name for entry in os.scandir(_SHM) if _is_ours(entry)),
        system_v=frozenset(_system_v()),
        processes=_processes(),
        threads=_threads(),
    )


def settle(before: Snapshot, timeout: float = 5.0) -> list[str]:
    """Return what is new since `before` and does not go away within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        # Twice, because finalizers run by the first may free what the second can find.
        gc.collect()
        gc.collect()
        left = [line for line in before.diff(snapshot()) if not _is_foreign(line)]
        if not left or time.monotonic() > deadline:
            return left
        # Nothing reports the end of threads, children and descriptors alike, so look again.
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


@contextlib.contextmanager
def no_leaks(timeout: float = 5.0) -> Iterator[None]:
    """Raise `LeakError` when the block leaves something behind; its own error goes first."""
    before = snapshot()
    yield
    if left := settle(before, timeout):
        raise LeakError("left behind:\n  " + "\n  ".join(left))


def _service_descriptors() -> set[int]:
    """Return the descriptors of multiprocessing's services, which live as long as we do."""
    fds = set()
    if tracker := sys.modules.get("multiprocessing.resource_tracker"):
        fds.add(tracker._resource_tracker._fd)
    if forkserver := sys.modules.get("multiprocessing.forkserver"):
        fds.add(forkserver._forkserver._forkserver_alive_fd)
    sharer = sys.modules.get("multiprocessing.resource_sharer")
    if sharer and (listener := sharer._resource_sharer._listener):
        # Sending a connection starts it, and it serves all later ones.
        fds.add(listener._listener._socket.fileno())
    return fds - {None}


def _stock_arenas() -> set[str]:
    """Return the inodes of the arenas that the stock heap keeps for reuse, up to a size."""
    if heap := sys.modules.get("multiprocessing.heap"):
        arenas = heap.BufferWrapper._heap._arenas
        return {str(os.fstat(arena.fd).st_ino) for arena in arenas if arena.fd != -1}
    return set()


def _descriptors() -> Counter[str]:
    kept, arenas = _service_descriptors(), _stock_arenas()
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        # The descriptor of this very listing is closed by now.
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if int(fd) not in kept and str(os.stat(int(fd)).st_ino) not in arenas:
                found[target] += 1
    return found


def _mappings() -> Counter[str]:
    """Count mapped objects, not mappings: one object may be mapped in several pieces."""
    arenas = _stock_arenas()
    objects = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, _, _, _, inode, *rest = line.split(maxsplit=5)
        path = rest[0] if rest else ""
        if (
            re.match(r"/memfd:|/dev/shm/|/SYSV|.*/pym-.* \(deleted\)$", path)
            and inode not in arenas
        ):
            objects.add((path, inode))
    return Counter(path for path, _ in objects)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _is_foreign(line: str) -> bool:
    """Whether a line is about an entry of /dev/shm that unrelated processes use, or used."""
    kind, _, name = line.partition(": ")
    if kind != "shared_memory":
        return False
    path = _SHM / name
    family = {os.getpid()} | {process.pid for process in descendants()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in family:
            # It may end meanwhile, or belong to another user.
            with contextlib.suppress(OSError):
                if str(path) in (entry / "maps").read_text():
                    return True
                if any(os.readlink(fd) == str(path) for fd in (entry / "fd").iterdir()):
                    return True
    # Their last user may have removed it before we looked for one.
    return not path.exists()


def _system_v() -> Iterator[str]:
    for kind, column in _SYSTEM_V.items():
        # A kernel may be built without System V IPC.
        with contextlib.suppress(FileNotFoundError):
            head, *rows = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
            for row in rows:
                fields = dict(zip(head.split(), row.split(), strict=False))
                if int(fields["uid"]) == os.getuid():
                    yield f"{kind} id {fields[column]} (key {fields['key']})"


def _processes() -> frozenset[str]:
    kept = service_pids()
    # By pid alone: the state and the command line of one process change.
    return frozenset(
        f"pid {process.pid}{' (zombie)' if process.zombie else ''} of {process.parent}"
        for process in descendants()
        if process.pid not in kept
    )


def _threads() -> frozenset[str]:
    kept = set()
    if sharer := sys.modules.get("multiprocessing.resource_sharer"):
        kept.add(sharer._resource_sharer._thread)
    return frozenset(
        f"{thread.name} ({thread.ident})"
        for thread in threading.enumerate()
        # Stands for a thread of C code that once called Python; nobody takes it off the list.
        if thread not in kept and not isinstance(thread, threading._DummyThread)
    )
