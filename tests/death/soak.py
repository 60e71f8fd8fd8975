"""Kill producers, consumers and holders of locks at random instants, and keep a ledger.

    python tests/death/soak.py --kills 20000
    python tests/death/soak.py --queue JoinableQueue --redeliver
    python tests/death/soak.py --context mpipc-posix --queue SimpleQueue
    python tests/death/soak.py --context mpipc-pipe --queue none    # only the lock
    python tests/death/soak.py --context stock          # for comparison: it hangs
    python tests/death/soak.py --context faster-fifo    # its queue, if it is installed

Each message has its producer's number, its own, and a checksum. Producers note how many puts have
returned, consumers what they were given. In the end everything that was put is accounted for: each
message came once, whole and in order, and at most one is missing for each process that was killed
with it in its hands. With --redeliver nothing at all is missing: what came more than once came to
consumers that were killed, but for the last, and in the end join() finds all tasks done. The status
is 0 if that is so and nothing hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import multiprocessing
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mpipc
from mpipc.testing import settle, snapshot

PRODUCERS, CONSUMERS, LOCKERS = 3, 3, 2
HEAD = struct.Struct("<III")  # producer, number, checksum of the rest
ENTRY = struct.Struct("<III")  # producer, number, 1 if whole
SIZES = (0, 10, 100, 1000, 4000, 5000, 20_000, 70_000)
HUNG = 30.0  # seconds in which nothing moves


@dataclass
class Outcome:
    """What comes of any soak."""

    context: str
    kills: int = 0
    leaked: int = 0
    hangs: int = 0
    seconds: float = 0.0

    @property
    def well(self) -> bool:
        raise NotImplementedError


@dataclass
class Figures(Outcome):
    """What came of it."""

    queue: str = "Queue"
    messages: int = 0
    lost: int = 0
    lost_at_most: int = 0
    redelivered: int = 0
    doubled: int = 0
    damaged: int = 0
    disordered: int = 0
    disordered_at_most: int = 0
    locks_taken: int = 0
    locks_broken: int = 0

    @property
    def well(self) -> bool:
        bad = self.doubled, self.damaged, self.locks_broken, self.leaked, self.hangs
        return (
            not any(bad)
            and self.lost <= self.lost_at_most
            and self.disordered <= self.disordered_at_most
        )


class Board:
    """Words that all processes write, and that no mechanism of ours has a part in."""

    def __init__(self, words: int) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * words)).cast("Q")

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value


class FasterFifo:
    """The queue of that package, without the time limits that it has by default."""

    def __init__(self) -> None:
        import faster_fifo

        self._queue = faster_fifo.Queue(1 << 20)

    def put(self, message: Any) -> None:
        self._queue.put(message, timeout=1e6)

    def get(self) -> Any:
        return self._queue.get(timeout=1e6)


class Soak:
    """The processes, what they share, and the ledger."""

    def __init__(
        self, context: str, kind: str, kills: int, seed: int, locks: bool, redeliver: bool
    ) -> None:
        self.ctx = forking(context)
        self.figures = Figures(context, queue=kind)
        self.target = kills
        self.random = random.Random(seed)
        self.tasks = kind == "JoinableQueue"
        self.redeliver = redeliver
        self.killed: set[int] = set()  # consumers
        self.workers = {"produce": PRODUCERS, "consume": CONSUMERS, "hold": LOCKERS if locks else 0}
        if kind == "none":
            self.workers.update(produce=0, consume=0)
        self.queue: Any = self.new_queue(context, kind)
        self.lock = self.ctx.Lock()
        # For each producer there ever was, how many of its puts have begun and have returned.
        self.begun = Board(kills + 100)
        self.returned = Board(kills + 100)
        # Turns at the lock, twice: they differ only while somebody has it, or has died with it.
        self.turns = Board(2)
        self.state = Board(2)  # stop producing; messages taken
        self.producers = 0
        self.folder = tempfile.TemporaryDirectory()
        self.living: dict[Any, str] = {}  # what each does

    def new_queue(self, context: str, kind: str) -> Any:
        if context == "faster-fifo":
            return FasterFifo()
        if kind == "none":
            return None
        # Places in a bounded queue that a killed process held come back with ours only.
        bounded = context.startswith("mpipc-") and kind != "SimpleQueue"
        options: dict[str, Any] = {"redeliver": True} if self.redeliver else {}
        return getattr(self.ctx, kind)(*[40] * bounded, **options)

    # -- what the processes do -------------------------------------------------------------------

    def produce(self, who: int) -> None:
        chance = random.Random(who)
        number = 0
        while not self.state[0]:
            body = chance.randbytes(chance.choice(SIZES))
            self.begun[who] = number + 1
            self.queue.put(HEAD.pack(who, number, zlib.crc32(body)) + body)
            number += 1
            self.returned[who] = number
        self.finish()

    def consume(self) -> None:
        log = os.open(
            os.path.join(self.folder.name, str(os.getpid())),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        )
        while True:
            message = self.queue.get()
            if message is None:
                if self.tasks:
                    self.queue.task_done()
                break
            who, number, checksum = HEAD.unpack_from(message)
            whole = zlib.crc32(message[HEAD.size :]) == checksum
            if self.redeliver:  # or hardly anybody would be killed with a message in hand
                time.sleep(who % 3 / 1000)
            os.write(log, ENTRY.pack(who, number, whole))
            self.state[1] += 1
            if self.redeliver:
                time.sleep(who % 2 / 1000)
            if self.tasks:
                self.queue.task_done()
        self.finish()

    def hold(self) -> None:
        warnings.simplefilter("error", mpipc.OwnerDiedWarning)
        while not self.state[0]:
            try:
                self.lock.acquire()
            except mpipc.OwnerDiedWarning:
                continue
            # One who died here has left the first a step ahead.
            first, second = self.turns[0], self.turns[1]
            if first - second not in (0, 1):
                os._exit(99)
            self.turns[0] = self.turns[1] = first
            self.turns[0] = first + 1
            self.turns[1] = first + 1
            self.lock.release()
        self.finish()

    def finish(self) -> None:
        # The log of what happened is whole; the finalizers of a child would only cost time.
        if hasattr(self.queue, "join_thread"):
            self.queue.close()
            self.queue.join_thread()
        os._exit(0)

    # -- the driver ------------------------------------------------------------------------------

    def start(self, kind: str) -> None:
        if kind == "produce":
            who = self.producers
            self.producers += 1
            process = self.ctx.Process(target=self.produce, args=(who,))
        else:
            process = self.ctx.Process(target=getattr(self, kind))
        process.start()
        self.living[process] = kind

    def run(self) -> Figures:
        try:
            self.kill_at_random()
            if not self.figures.hangs:
                self.wind_up()
        finally:
            for process in self.living:
                process.kill()
                process.join()
                process.close()
        self.settle_accounts()
        self.folder.cleanup()
        return self.figures

    def kill_at_random(self) -> None:
        """Start all, kill one after the other and replace it, until it was often enough."""
        for kind, count in self.workers.items():
            for _ in range(count):
                self.start(kind)
        taken, since = 0, time.monotonic()
        while self.figures.kills < self.target:
            time.sleep(self.random.uniform(0, 0.004))
            victim = self.random.choice(list(self.living))
            kind = self.living.pop(victim)
            victim.kill()
            victim.join()
            if victim.exitcode == 99:
                self.figures.locks_broken += 1
            if kind == "consume":
                self.killed.add(victim.pid)
                # It may have had a message in its hands.
                if self.redeliver:
                    self.figures.disordered_at_most += 1
                else:
                    self.figures.lost_at_most += 1
            victim.close()
            self.figures.kills += 1
            self.start(kind)
            moved = self.state[1] if self.queue else self.turns[0]
            if moved != taken:
                taken, since = moved, time.monotonic()
            elif time.monotonic() - since > HUNG:
                self.figures.hangs += 1
                return

    def wind_up(self) -> None:
        """Let the producers end, the consumers take what is left, and all go."""
        self.state[0] = 1
        consumers = [process for process, kind in self.living.items() if kind == "consume"]
        for process in self.living.keys() - set(consumers):
            process.join(HUNG)
            if process.exitcode is None:
                self.figures.hangs += 1
            elif process.exitcode == 99:
                self.figures.locks_broken += 1
        if self.redeliver:
            joined = threading.Thread(target=self.queue.join, daemon=True)
            joined.start()
            joined.join(HUNG)
            self.figures.hangs += joined.is_alive()
        for _ in consumers:
            self.queue.put(None)
        for process in consumers:
            process.join(HUNG)
            self.figures.hangs += process.exitcode is None

    def settle_accounts(self) -> None:
        seen: dict[int, set[int]] = defaultdict(set)
        by_living: dict[int, set[int]] = defaultdict(set)
        for log in Path(self.folder.name).iterdir():
            last: dict[int, int] = {}
            excused = self.redeliver and int(log.name) in self.killed
            data = log.read_bytes()
            entries = list(ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size]))
            for place, (who, number, whole) in enumerate(entries, 1):
                self.figures.messages += 1
                self.figures.damaged += not whole
                self.figures.redelivered += self.redeliver and number in seen[who]
                # The last that one who was killed was given may be given to another, whoever
                # is looked at first here; nothing else.
                if not (excused and place == len(entries)):
                    self.figures.doubled += number in by_living[who]
                    by_living[who].add(number)
                self.figures.disordered += number <= last.get(who, -1)
                seen[who].add(number)
                last[who] = max(number, last.get(who, -1))
        for who in range(self.producers):
            put = set(range(self.returned[who]))
            self.figures.lost += len(put - seen[who])
            self.figures.damaged += len(seen[who] - set(range(self.begun[who])))
        self.figures.locks_taken = self.turns[0]


def forking(context: str) -> Any:
    """The context of that name, which forks."""
    ours = context.startswith("mpipc-")
    return multiprocessing.get_context(f"{context}-fork" if ours else "fork")


def arguments(about: str) -> argparse.ArgumentParser:
    """What any soak may be told."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--context", default="mpipc-shm", help="without its start method")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def conclude(soak: Callable[[], Outcome], options: argparse.Namespace) -> int:
    """Run a soak, print and write what came of it; the exit status."""
    print(f"seed {options.seed}", flush=True)
    faulthandler.register(signal.SIGUSR1)
    before = snapshot()
    began = time.monotonic()
    figures = soak()
    figures.seconds = round(time.monotonic() - began, 1)
    left = settle(before)
    figures.leaked = len(left)
    print(*left, sep="\n")
    for name, value in asdict(figures).items():
        print(f"{name:14} {value}")
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return int(not figures.well)


def main() -> int:
    parser = arguments("Kill processes at random; keep a ledger.")
    kinds = ("Queue", "SimpleQueue", "JoinableQueue", "none")
    parser.add_argument("--queue", default="Queue", choices=kinds)
    parser.add_argument(
        "--redeliver",
        action="store_true",
        help="a JoinableQueue that hands on what the killed had in hand",
    )
    parser.add_argument("--without-locks", action="store_true", help="no holders of a lock")
    options = parser.parse_args()
    if options.redeliver and options.queue != "JoinableQueue":
        parser.error("--redeliver is an option of --queue JoinableQueue")

    parent = os.getpid()
    status = 128 + signal.SIGTERM
    # Ended from outside, the parent kills its children first.
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(status) if os.getpid() == parent else os._exit(status)
    )

    def soak() -> Figures:
        locks = not options.without_locks
        return Soak(
            options.context, options.queue, options.kills, options.seed, locks, options.redeliver
        ).run()

    return conclude(soak, options)


if __name__ == "__main__":
    sys.exit(main())
