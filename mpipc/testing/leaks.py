"""What a process holds: descriptors, mappings, named objects, System V ids, children, threads.

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
from typing import Any

from mpipc.adapters import leases
from mpipc.testing.processes import descendants, service_pids

_SHM = Path("/dev/shm")
_SYSTEM_V = {"msg": "msqid", "sem": "semid", "shm": "shmid"}

# A process keeps its current small arena for the next Value or Array, as malloc keeps pages, and
# the last larger one, and what it has waited with for the next wait. What is mapped by Python has
# two descriptors, of which one is the mapping's. An arena in a file has lost its unguessable name.
_ARENA_FILE = "mpipc's arena in a file"
_KEPT = {
    "/memfd:mpipc-arena (deleted)": 2,
    "/memfd:mpipc-waiters (deleted)": 2,
    "anon_inode:inotify": 2,
    _ARENA_FILE: 2,
}


class LeakError(AssertionError):
    """Something was left behind; the message has one line for each."""


@dataclass(frozen=True)
class Snapshot:
    """What this process held at one moment."""

    descriptors: Counter[str]
    mappings: Counter[str]
    shared_memory: frozenset[str]
    system_v: frozenset[str]
    leases: frozenset[str]
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
        for what in ("shared_memory", "system_v", "leases", "processes", "threads"):
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
        leases=_leases(),
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
        left = _without_foreign(before.diff(snapshot()))
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


def _own_arenas() -> list[Any]:
    """Return the arenas in which our mechanisms put the next small blocks."""
    blocks = sys.modules.get("mpipc.adapters.blocks")
    return blocks.current_arenas() if blocks else []


def _kept_inodes() -> set[str]:
    """Return the inodes of files that belong to arenas kept for reuse."""
    found = _stock_arenas()
    for arena in _own_arenas():
        file = arena.lease.path if hasattr(arena, "lease") else arena.fd
        found.add(str(os.stat(file).st_ino))
    return found


def _kept_segments() -> set[str]:
    """Return the ids of System V memory that belong to arenas kept for reuse."""
    return {str(arena.buffer.id) for arena in _own_arenas() if hasattr(arena, "lease")}


def _leases() -> frozenset[str]:
    """Return the leases of named kernel objects, not all of which the file system shows."""
    kept = {arena.lease.path for arena in _own_arenas() if hasattr(arena, "lease")}
    return frozenset(leases.existing()) - kept


def _descriptors() -> Counter[str]:
    kept, arenas = _service_descriptors(), _kept_inodes()
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        # The descriptor of this very listing is closed by now.
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if re.search(r"/mpipc-[0-9a-f]+\.arena \(deleted\)$", target):
                target = _ARENA_FILE
            if int(fd) not in kept and str(os.stat(int(fd)).st_ino) not in arenas:
                found[target] += 1
    return found


def _mappings() -> Counter[str]:
    """Count mapped objects, not mappings: one object may be mapped in several pieces."""
    arenas = _kept_inodes() | _kept_segments()
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


def _without_foreign(lines: list[str]) -> list[str]:
    """Leave out lines about named things that unrelated processes use, or used."""
    if not any(line.startswith(("shared_memory", "leases", "system_v")) for line in lines):
        return lines
    used = _files_of_others()
    keys = {leases.key_of(path) for path in used if leases.is_lease(path)}
    # Their last user may have removed one before we looked for users.
    ids = set(_system_v())

    def is_foreign(line: str) -> bool:
        kind, _, name = line.partition(": ")
        if kind == "leases":
            return name in used or not os.path.exists(name)
        if kind == "shared_memory":
            try:
                return _inode(os.stat(_SHM / name)) in used
            except FileNotFoundError:
                return True
        if kind == "system_v":
            return name not in ids or int(name.split()[-1].rstrip(")")) in keys
        return False

    return [line for line in lines if not is_foreign(line)]


def _files_of_others() -> set[str]:
    """What unrelated processes have open, by path, or mapped in /dev/shm, by inode."""
    family = {os.getpid()} | {process.pid for process in descendants()}
    used = set()
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) not in family:
            # It may end meanwhile, or belong to another user.
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(FileNotFoundError):
                        path = os.readlink(f"/proc/{pid}/fd/{fd}")
                        used.add(path)
                        if path.startswith(str(_SHM)):
                            used.add(_inode(os.stat(f"/proc/{pid}/fd/{fd}")))
                # What is mapped by its inode: sem_open() maps a file before that has its name.
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                    if str(_SHM) in line:
                        device, inode = line.split(maxsplit=5)[3:5]
                        used.add(f"{device} {inode}")
    return used


def _inode(file: os.stat_result) -> str:
    """A file as ``/proc/PID/maps`` names it."""
    return f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x} {file.st_ino}"


def _system_v() -> Iterator[str]:
    for kind, column in _SYSTEM_V.items():
        # A kernel may be built without System V IPC.
        with contextlib.suppress(FileNotFoundError):
            head, *rows = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
            for row in rows:
                fields = dict(zip(head.split(), row.split(), strict=False))
                kept = _kept_segments() if kind == "shm" else set()
                if int(fields["uid"]) == os.getuid() and fields[column] not in kept:
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
