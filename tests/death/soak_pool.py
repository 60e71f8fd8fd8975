"""Kill the workers of pools at random instants; each task is answered, or fails with WorkerLost.

    python tests/death/soak_pool.py --kills 5000
    python tests/death/soak_pool.py --context mpipc-pipe --kills 300
    python tests/death/soak_pool.py --context stock         # for comparison: it hangs

One pool after the other gets five jobs at once, by apply_async, map, starmap, imap and
imap_unordered, with chunks of several sizes. Each task notes that it begins and ends, and answers
with its number and some bytes. Every answer must be that of its task or a WorkerLost that names a
worker which was killed; no task may run twice; no more tasks or chunks may be lost than workers
were killed; and the pool must end, by close() or terminate(), while its workers are still being
killed. A pool over a byte stream may break instead: then all that is left must raise OwnerDied. The
status is 0 if that is so.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from soak import HUNG, Board, Outcome, arguments, conclude, forking

import mpipc

WORKERS = 4
WAYS = ("apply_async", "map_async", "starmap_async", "imap", "imap_unordered")
TASKS = 120  # of each job
SIZES = (0, 10, 100, 5000, 70_000)
HUGE = 2_000_000  # once in a job
AFTER = 40  # tasks of whom nobody wants to know when the pool is terminated


@dataclass
class Figures(Outcome):
    """What came of it."""

    pools: int = 0
    broken: int = 0  # of byte streams, that a kill cut in the middle of a message
    answered: int = 0
    lost: int = 0  # tasks, or chunks of them
    wrong: int = 0
    doubled: int = 0
    missing: int = 0

    @property
    def well(self) -> bool:
        bad = self.wrong, self.doubled, self.missing, self.leaked, self.hangs
        return not any(bad) and self.lost <= self.kills


ALL = len(WAYS) * TASKS + AFTER
begun, ended = Board(ALL), Board(ALL)


def work(number: int, size: int) -> tuple[int, bytes]:
    begun[number] += 1
    answer = number, expected(number, size)
    ended[number] += 1
    return answer


def work_on(task: tuple[int, int]) -> tuple[int, bytes]:
    return work(*task)


def expected(number: int, size: int) -> bytes:
    return bytes([number & 255]) * size


class Job:
    """Some tasks, handed to a pool in one of its ways, and what came back."""

    def __init__(self, pool: Any, way: str, chance: random.Random) -> None:
        self.pool = pool
        self.way = way
        self.chunk = 1 if way == "apply_async" else chance.choice((1, 1, 3, 10))
        first = WAYS.index(way) * TASKS
        self.sizes = {first + i: chance.choice(SIZES) for i in range(TASKS)}
        self.sizes[first + chance.randrange(TASKS)] = HUGE
        self.answers: list[tuple[int, bytes]] = []
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        tasks = list(self.sizes.items())
        if self.way == "apply_async":
            for result in [self.pool.apply_async(work, task) for task in tasks]:
                try:
                    self.answers.append(result.get())
                except Exception as error:
                    self.errors.append(error)
        elif self.way.startswith("imap"):
            answers = getattr(self.pool, self.way)(work_on, iter(tasks), self.chunk)
            while True:  # with chunks, the first error ends it
                try:
                    self.answers.append(next(answers))
                except StopIteration:
                    break
                except Exception as error:
                    self.errors.append(error)
        else:
            function = work if self.way == "starmap_async" else work_on
            try:
                self.answers = getattr(self.pool, self.way)(function, tasks, self.chunk).get()
            except Exception as error:
                self.errors.append(error)

    @property
    def severally(self) -> bool:
        """Whether each task fails for itself."""
        return self.chunk == 1 and not self.way.endswith("map_async")

    def settle(self, killed: set[int], figures: Figures) -> None:
        """Once all is over: judge what came back."""
        for number, answer in self.answers:
            if answer != expected(number, self.sizes.get(number, -1)) or ended[number] != 1:
                print(f"{self.way}: {len(answer)} bytes for {number}, {ended[number]}", flush=True)
                figures.wrong += 1
        cut = any(isinstance(error, mpipc.OwnerDied) for error in self.errors)
        for error in self.errors:
            if not names_one_of(killed, error):
                print(f"{self.way}: {error!r}", flush=True)
                figures.wrong += 1
        known = [number for number, _ in self.answers]
        figures.answered += len(known)
        figures.doubled += len(known) - len(set(known))
        figures.doubled += sum(begun[number] > 1 for number in self.sizes)
        numbers = list(self.sizes)
        chunks = [numbers[i : i + self.chunk] for i in range(0, TASKS, self.chunk)]
        unfinished = sum(not all(ended[number] for number in chunk) for chunk in chunks)
        if not cut:
            figures.lost += max(unfinished, len(self.errors))
        if self.severally:
            figures.missing += TASKS - len(known) - len(self.errors)
        elif not self.errors:
            figures.missing += TASKS - len(known)


def names_one_of(killed: set[int], error: BaseException) -> bool:
    if isinstance(error, mpipc.WorkerLost):
        known = error.task in ("work", "work_on") and error.exitcode == -signal.SIGKILL
        return known and error.pid in killed
    return isinstance(error, mpipc.OwnerDied) and error.pid in killed


class Soak:
    """Pools, and who kills their workers."""

    def __init__(self, context: str, kills: int, seed: int) -> None:
        self.ctx = forking(context)
        self.figures = Figures(context)
        self.target = kills
        self.random = random.Random(seed)
        self.killed: set[int] = set()

    def run(self) -> Figures:
        while self.figures.kills < self.target and not self.figures.hangs:
            self.one_pool()
        return self.figures

    def one_pool(self) -> None:
        for number in range(ALL):
            begun[number] = ended[number] = 0
        self.killed.clear()
        pool = self.ctx.Pool(WORKERS, maxtasksperchild=self.random.choice((None, None, 7)))
        jobs = [Job(pool, way, self.random) for way in WAYS]
        self.attend(pool, [job.thread for job in jobs])
        # What an iteration that has ended early did not wait for goes on.
        self.attend(pool, [background(wait_for_jobs, pool)])
        terminate = self.random.random() < 0.5
        if terminate:
            pool.map_async(work_on, [(number, 10) for number in range(ALL - AFTER, ALL)])
            time.sleep(self.random.uniform(0, 0.005))
            self.attend(pool, [background(pool.terminate)])
        else:
            pool.close()
        self.attend(pool, [background(pool.join)])
        if self.figures.hangs:
            return
        self.figures.pools += 1
        for job in jobs:
            job.settle(self.killed, self.figures)
        self.figures.broken += any(
            isinstance(error, mpipc.OwnerDied) for job in jobs for error in job.errors
        )

    def attend(self, pool: Any, threads: list[threading.Thread]) -> None:
        """Kill workers until the threads are done, or nothing moves any more."""
        moved, since = 0, time.monotonic()
        while any(thread.is_alive() for thread in threads) and not self.figures.hangs:
            time.sleep(self.random.uniform(0, 0.006))
            workers = [worker for worker in pool._pool if worker.pid]
            self.random.shuffle(workers)
            # Now and then all of them.
            for worker in workers if self.random.random() < 0.05 else workers[:1]:
                self.killed.add(worker.pid)
                worker.kill()
                self.figures.kills += 1
            now = sum(ended[number] for number in range(ALL))
            if now != moved:
                moved, since = now, time.monotonic()
            elif time.monotonic() - since > HUNG:
                self.figures.hangs += 1
                faulthandler.dump_traceback()


def background(call: Callable[..., object], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    return thread


def wait_for_jobs(pool: Any) -> None:
    while pool._cache:
        time.sleep(0.001)


def main() -> int:
    options = arguments("Kill the workers of pools at random; keep a ledger.").parse_args()
    soak = Soak(options.context, options.kills, options.seed)
    status = conclude(soak.run, options)
    if soak.figures.hangs:
        os._exit(status)  # the threads of what hangs cannot be ended
    return status


if __name__ == "__main__":
    sys.exit(main())
