"""Overwrite shared memory, and see that every operation answers or raises.

    make fuzz                                             # ARGS='--seconds 600 --seed 7'
    python tests/faults/fuzz.py [--rounds N] [--examples N] [--seconds S] [--seed N] [--json FILE]

An example is an object, what it holds, and the words of its memory that are overwritten: fields by
their names in layout.h, or any word at all. It is played in a process of its own, which calls all
that the object can do. A crash, a hang, an exception of a kind that says nothing of the damage, or
memory taken out of all proportion is a failure; hypothesis then looks for the smallest example that
still shows it. A round is that many examples from one seed, and `--rounds 1 --seed N` plays the
round of that seed again. The status is 0 if nothing failed.

Not overwritten are the bytes of messages, which are pickles that may do anything, and the owner in
a robust lock's word: another that lives is one that nobody can tell from the true holder.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import queue as queue_errors
import resource
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing import context
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

import numpy
from core_memory import EMPTY, LINKED, LOCK, OWNER_DIED, PAGE
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import mpipc
from mpipc import OwnerDied, ShutDown

ctx = mpipc.get_context("shm", start_method="fork", max_bytes=32 << 20)

HANGS_AFTER = 20.0
# Reading a message copies it, so some megabytes are its due.
MOST_MEMORY = 256 << 20

# struct channel, by layout.h: (offset, size).
CHANNEL = {
    "magic": (0, 8),
    "version": (8, 4),
    "flags": (12, 4),
    "maxsize": (16, 4),
    "maxpages": (20, 4),
    "maxbytes": (24, 8),
    "exposed": (68, 4),
    "head": (72, 8),
    "tail": (80, 8),
    "get_given": (88, 4),
    "get_called": (92, 4),
    "put_given": (96, 4),
    "put_called": (100, 4),
    "bells": (104, 4),
    "spare": (108, 4),
    "npages": (112, 4),
    "done": (116, 4),
    "backlog": (120, 8),
    "read_at": (128, 4),
    "write_at": (132, 4),
    "joiners": (136, 4),
    "epoch": (140, 4),
    "last": (144, 4),
    "swept": (148, 4),
    "rung_at": (152, 8),
    "rung_on": (160, 4),
    "hand": (164, 4),
    "looked_at": (168, 8),
    "takes": (176, 4),
    "shut": (180, 4),
    "free_pages": (184, 4),
    "fewest": (188, 4),
    "log": (276, 4),
    "log_head": (280, 8),
    "log_tasks": (288, 8),
    "log_owner": (296, 4),
    "log_done": (300, 4),
    "period_at": (2368, 8),
    "surplus": (2376, 4),
    "empty_list": (2380, 4),
    **{f"free_list[{i}]": (192 + 4 * i, 4) for i in (0, 1, 2, 3, 4, 5, 8, 20)},
    **{f"taker[{i}].owner": (304 + 16 * i, 4) for i in (0, 1, 127, 128)},
    **{f"taker[{i}].tasks": (312 + 16 * i, 8) for i in (0, 1, 127, 128)},
}
RECORD = {"size": (0, 8), "kind": (8, 2), "form": (10, 2), "page": (12, 4)}
EXTENT = {"desc": (0, 8), "epoch": (8, 4), "prev": (12, 4), "list_next": (16, 4)}
EXTENT |= {"list_prev": (20, 4), "taken": (24, 4), "thread": (28, 4)}
EXTENT |= {f"again {name}": (32 + offset, size) for name, (offset, size) in RECORD.items()}
EXTENT |= {f"onward {name}": (48 + offset, size) for name, (offset, size) in RECORD.items()}
EXTENT |= {f"heir[{i}]": (64 + 4 * i, 4) for i in (0, 1, 15)}
# Behind the extent of an array.
ARRAY = {"type": (128, 1), "order": (129, 1), "dimensions": (130, 2)}
ARRAY |= {f"shape[{i}]": (136 + 8 * i, 8) for i in (0, 1, 6)}
CONDITION = {"next": (0, 4), "crowd": (4, 4), "crowded": (8, 4)}
CONDITION |= {f"slot[{i}]": (16 + 8 * i, 8) for i in (0, 1, 2, 60, 61)}
UNDO = {"word": (0, 8), "log_value": (12, 4), "log_slot": (16, 8)}
UNDO |= {f"slot[{i}]": (24 + 8 * i, 8) for i in (0, 1, 2, 124)}
WORD = {"word": (0, 8)}
BARRIER = {"state": (0, 4), "rounds": (4, 4)}
BARRIER |= {
    f"seat[{i}].{what}": (8 + 8 * i + at, 4)
    for i in (0, 1, 15)
    for what, at in (("tag", 0), ("round", 4))
}


class Watched:
    """Calls, and what came of each."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()

    def __call__(self, call: Callable[[], object], *expected: type[Exception]) -> None:
        """Call. A wait without a time limit ends by a signal, as Ctrl-C would end it."""
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            call()
            self.came["answers"] += 1
        except Interrupted:
            self.came["waits interrupted"] += 1
        except (OSError, MemoryError, OverflowError, OwnerDied, EOFError, *expected) as error:
            self.came[type(error).__name__] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Interrupted(BaseException):
    pass


def interrupt(*_: object) -> None:
    raise Interrupted


# A damaged record may hand out any bytes as a message: what the unpickler says of those.
OF_PICKLES: tuple[type[Exception], ...] = (ValueError, TypeError, KeyError, IndexError)
OF_PICKLES += (AttributeError, ImportError, UnpicklingError)
OF_QUEUES = (*OF_PICKLES, queue_errors.Empty, queue_errors.Full, ShutDown)


def use_queue(queue: Any, watched: Watched) -> None:
    for call in (
        lambda: queue.put(b"y" * 9000, timeout=0.003),
        lambda: queue.put((1, "two"), timeout=0.003),
        lambda: queue.put(numpy.arange(3000), timeout=0.003),
        queue.segment.inspect,
        queue.qsize,
        queue.full,
        queue.empty,
        queue._reader.fileno,
        lambda: queue._reader.poll(0.003),
        *[lambda: queue.get(timeout=0.003)] * 4,
        lambda: queue.put(b"z" * 200_000, timeout=0.003),
        lambda: queue.put(b"z" * 1000, timeout=0.003),
        *[lambda: queue.get(timeout=0.003)] * 3,
    ):
        watched(call, *OF_QUEUES)
    if hasattr(queue, "join"):
        watched(queue.task_done, ValueError)
        watched(queue.join)
    watched(queue.shutdown)
    watched(lambda: queue.put(1, timeout=0.003), *OF_QUEUES)
    watched(lambda: queue.shutdown(immediate=True))
    watched(lambda: queue.get(timeout=0.003), *OF_QUEUES)


def use_views(queue: Any, watched: Watched) -> None:
    """Forks while it looks into messages, lets them go there and here, and goes on."""
    views = []
    for _ in range(4):
        watched(lambda: views.append(queue.get(timeout=0.003)), *OF_QUEUES)
    pid = os.fork()
    if not pid:
        watched(lambda: views.clear())
        watched(queue.segment.inspect)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    views.clear()
    use_queue(queue, watched)


def use_pipe(ends: Any, watched: Watched) -> None:
    first, second = ends
    for call in (
        lambda: second.send_bytes(b"y" * 9000),
        lambda: second.send(1),
        lambda: first.poll(0.003),
        *[first.recv_bytes] * 3,
        lambda: first.recv_bytes_into(bytearray(100_000)),
        first.fileno,
        lambda: second.send_bytes(b"z" * 200_000),
        *[first.recv_bytes] * 2,
        lambda: first.send_bytes(b"back"),
        second.recv_bytes,
        second.close,
        first.recv_bytes,
    ):
        watched(call, *OF_PICKLES)


def use_lock(lock: Any, watched: Watched) -> None:
    for _ in range(3):
        watched(lambda: lock.acquire(timeout=0.003))
        watched(lambda: lock.acquire(False))
    watched(lambda: repr(lock))
    for _ in range(4):
        watched(lock.release, ValueError, AssertionError)
    watched(lambda: lock.acquire())


def use_condition(condition: Any, watched: Watched) -> None:
    def notify() -> None:
        with condition:
            condition.notify_all()

    with condition:
        watched(lambda: condition.wait(0.003))
        watched(condition.notify)
        watched(condition.notify_all)
        watched(condition._waiters)
    thread = threading.Timer(0.003, notify)
    thread.start()
    with condition:
        watched(lambda: condition.wait(0.05))
    thread.join()


def use_event(event: Any, watched: Watched) -> None:
    for call in (event.is_set, event.set, event.clear, lambda: event.wait(0.003), event.set):
        watched(call)
    watched(lambda: event.wait())


def use_barrier(barrier: Any, watched: Watched) -> None:
    broken = threading.BrokenBarrierError
    watched(lambda: barrier.n_waiting)
    watched(lambda: barrier.wait(0.01), broken, ValueError, IndexError)
    watched(barrier.reset, broken, ValueError, IndexError)
    watched(lambda: barrier.wait(0.01), broken, ValueError, IndexError)
    watched(barrier.abort, broken, ValueError, IndexError)


def queue_of(sizes: list[int], maxsize: int) -> Any:
    return fill(ctx.Queue(maxsize), sizes)


def joinable_of(sizes: list[int], maxsize: int) -> Any:
    queue = fill(ctx.JoinableQueue(maxsize), sizes)
    queue.get()
    return queue


def redelivering_of(sizes: list[int], maxsize: int) -> Any:
    """One message is in this process's hand, one in that of a dead one, one may be back."""
    queue = ctx.JoinableQueue(maxsize, redeliver=True)
    for number, size in enumerate(sizes):
        queue.put((number, b"x" * size))
    for handed_back in (True, False):
        pid = os.fork()
        if not pid:
            queue.get(timeout=1)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        if handed_back:
            queue.empty()
    queue.get(timeout=1)
    return queue


def views_of(sizes: list[int], maxsize: int) -> Any:
    queue = ctx.Queue(maxsize, views=True)
    for size in sizes:
        queue.put(numpy.zeros(size, "b"))
    return queue


def fill(queue: Any, sizes: list[int]) -> Any:
    """With holes, so that there are free extents too."""
    queue.put(bytes(30_000))
    for size in sizes:
        queue.put(b"x" * size, timeout=5)
    queue.get()
    return queue


def pipe_of(sizes: list[int], maxsize: int) -> Any:
    first, second = ctx.Pipe()
    for size in sizes:
        second.send_bytes(b"x" * size)
    return first, second


@dataclass(frozen=True)
class Kind:
    """How to make an object, where its words lie, what they are called, how to use it."""

    make: Callable[[list[int], int], Any]
    memory: Callable[[Any], tuple[int, int, int]]  # descriptor, where it begins, how long it is
    fields: dict[str, tuple[int, int]]
    use: Callable[[Any, Watched], None]
    of_messages: bool = False


def channel_of(thing: Any, which: int = 0) -> tuple[int, int, int]:
    segment = thing[0].segment if isinstance(thing, tuple) else thing.segment
    report = segment.inspect(which)
    return segment.fd, segment.options[4] * which, report["npages"] * PAGE


def block_of(block: Any) -> tuple[int, int, int]:
    arena, _, offset, size = reduced(block)
    return arena, offset, size


def reduced(block: Any) -> tuple[int, int, int, int]:
    """Where a block lies, as a spawned process would be told."""

    class Spawning:
        def duplicate_for_child(self, fd: int) -> int:
            return fd

        def DupFd(self, fd: int) -> int:
            return fd

    context.set_spawning_popen(Spawning())
    try:
        (fd, _), size, offset, length = block.__reduce__()[1]
    finally:
        context.set_spawning_popen(None)
    return fd, size, offset, length


def lock_memory(lock: Any) -> tuple[int, int, int]:
    context.set_spawning_popen(object())
    try:
        lock._is_fork_ctx = False
        return block_of(lock.__getstate__()[0])
    finally:
        context.set_spawning_popen(None)


KINDS = {
    "Queue": Kind(queue_of, channel_of, CHANNEL, use_queue, True),
    "JoinableQueue": Kind(joinable_of, channel_of, CHANNEL, use_queue, True),
    "Redelivering": Kind(redelivering_of, channel_of, CHANNEL, use_queue, True),
    "Views": Kind(views_of, channel_of, CHANNEL, use_views, True),
    "Pipe": Kind(pipe_of, channel_of, CHANNEL, use_pipe, True),
    "Lock": Kind(lambda *_: ctx.Lock(), lock_memory, WORD, use_lock),
    "RLock": Kind(lambda *_: ctx.RLock(), lock_memory, WORD, use_lock),
    "Semaphore": Kind(lambda *_: ctx.Semaphore(2), lock_memory, WORD, use_lock),
    "Undo": Kind(lambda *_: ctx.Semaphore(2, undo=True), lock_memory, UNDO, use_lock),
    "Condition": Kind(
        lambda *_: ctx.Condition(), lambda it: block_of(it.block), CONDITION, use_condition
    ),
    "Event": Kind(lambda *_: ctx.Event(), lock_memory, {"word": (0, 4)}, use_event),
    "Barrier": Kind(
        lambda *_: ctx.Barrier(2), lambda it: block_of(it._array.obj), BARRIER, use_barrier
    ),
}

OF_MESSAGES = [name for name, kind in KINDS.items() if kind.of_messages]

NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 12, 13, 16, 0x7FFFFFFF, EMPTY, LINKED, 0xFFFFFFFF, OWNER_DIED]),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)


@dataclass(frozen=True)
class Damage:
    """What is overwritten: a field of the header or of an extent or record, or a word anywhere."""

    what: str
    high: int
    low: int
    nth: int = 0
    keep: int = 0  # which half stays as it is: 1 the low one, 2 the high one


@st.composite
def examples(draw: Any) -> tuple[str, list[int], int, bool, list[Damage]]:
    kind = draw(st.sampled_from([*KINDS, *OF_MESSAGES, *OF_MESSAGES]))
    sizes = draw(st.lists(st.sampled_from([3, 900, 5000, 20_000, 90_000]), min_size=1, max_size=4))
    names = list(KINDS[kind].fields)
    if KINDS[kind].of_messages:
        names += [f"extent.{name}" for name in EXTENT for _ in range(4)]
        names += [f"record.{name}" for name in RECORD for _ in range(4)]
    if kind == "Views":
        names += [f"array.{name}" for name in ARRAY for _ in range(4)]
    names += ["any word"]
    damage = draw(
        st.lists(
            st.builds(
                Damage,
                what=st.sampled_from(names),
                high=NUMBERS,
                low=NUMBERS,
                nth=st.integers(0, 5),
                keep=st.sampled_from([0, 1, 2]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    return kind, sizes, draw(st.sampled_from([0, 5])), draw(st.booleans()), damage


def place(kind: Kind, hit: Damage, memory: mmap.mmap, start: int, length: int) -> tuple[int, int]:
    """Where the damaged field lies, and its size."""
    part, _, name = hit.what.rpartition(".")
    if hit.what in kind.fields:
        offset, size = kind.fields[hit.what]
        return start + offset, size
    if part in ("extent", "array"):
        page = 1
        for _ in range(hit.nth):
            pages = int.from_bytes(
                memory[start + page * PAGE + 4 : start + page * PAGE + 8], "little"
            )
            if not 0 < pages < length // PAGE - page:
                break
            page += pages
        offset, size = (EXTENT if part == "extent" else ARRAY)[name]
        return start + page * PAGE + offset, size
    if part == "record":
        # The position of the first message that waits is in `head`.
        head = int.from_bytes(memory[start + 72 : start + 80], "little") >> 28 << 4
        where = head + 16 * hit.nth if head + 200 < length else PAGE + 64
        return start + where + RECORD[name][0], RECORD[name][1]
    if kind.of_messages:  # of the header, or of what heads an extent: messages' bytes are theirs
        word = hit.high % 1000 if hit.nth < 3 else 0
        page = 0 if hit.nth < 3 else 1 + hit.low % max(1, length // PAGE - 1)
        offset = page * PAGE + 4 * (word if page == 0 else hit.high % 32)
    else:
        offset = hit.high % length // 4 * 4
    return start + offset, 4


def damage(kind: Kind, thing: Any, hits: list[Damage], died: bool) -> None:
    fd, start, length = kind.memory(thing)
    robust = {start + LOCK} if kind.of_messages else {start + 8} if kind.fields is UNDO else set()
    with mmap.mmap(fd, os.fstat(fd).st_size if not kind.of_messages else start + length) as memory:
        for hit in hits:
            where, size = place(kind, hit, memory, start, length)
            if any(where <= lock < where + size for lock in robust):
                continue
            old = int.from_bytes(memory[where : where + size], "little")
            new = hit.high << 32 | hit.low
            if size == 8 and hit.keep:
                low = 0xFFFFFFFF
                new = new & ~low | old & low if hit.keep == 1 else old & ~low | new & low
            memory[where : where + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")
        if died:
            for lock in robust:
                memory[lock : lock + 4] = OWNER_DIED.to_bytes(4, "little")


def play(name: str, sizes: list[int], maxsize: int, died: bool, hits: list[Damage]) -> Any:
    """In a process of its own. What came of the calls, or what went wrong."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        watched, error = Watched(), None
        try:
            os.close(read)
            faulthandler.enable(file=2)
            signal.signal(signal.SIGALRM, interrupt)
            warnings.simplefilter("ignore")
            kind = KINDS[name]
            thing = kind.make(sizes, maxsize)
            damage(kind, thing, hits, died)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            kind.use(thing, watched)
            used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            if used > MOST_MEMORY:
                error = f"took {used >> 20} MiB"
        except BaseException as raised:
            error = "".join(traceback.format_exception(raised)[-3:])
        with os.fdopen(write, "w") as out:
            json.dump([watched.came, error], out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        hung = not select.select([told], [], [], HANGS_AFTER)[0]
        if hung:
            os.kill(pid, signal.SIGABRT)  # shows where it hangs
            select.select([told], [], [], 1.0)
            os.kill(pid, signal.SIGKILL)
        data = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if hung or not data:
        return {}, "hung" if hung else f"crashed, status {status}"
    return json.loads(data)


@dataclass
class Figures:
    """What was found."""

    rounds: int = 0
    examples: int = 0
    words: int = 0
    came: dict[str, int] = field(default_factory=dict)
    crashes: int = 0
    hangs: int = 0
    other_failures: int = 0
    failures: list[str] = field(default_factory=list)


def fuzz(number: int, count: int, figures: Figures, ends: float) -> None:
    """One round; adds to the figures."""
    failed: list[str] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples())
    def one(example: tuple[str, list[int], int, bool, list[Damage]]) -> None:
        if time.monotonic() > ends and not failed:
            return
        came, error = play(*example)
        figures.examples += 1
        figures.words += len(example[-1])
        for what, times in came.items():
            figures.came[what] = figures.came.get(what, 0) + times
        if error is not None:
            failed.append(f"{error}\n  {example}")
            raise AssertionError(error)

    figures.rounds += 1
    try:
        one()
    except Exception:  # hypothesis's own too, should an example fail only sometimes
        if not failed:
            raise
        what = failed[-1]
        figures.failures.append(f"seed {number}: {what}")
        figures.hangs += what.startswith("hung")
        figures.crashes += what.startswith("crashed")
        figures.other_failures += not what.startswith(("hung", "crashed"))
        print("FAILED", figures.failures[-1], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Overwrite shared memory and use it.")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=500, help="in each round")
    parser.add_argument("--seconds", type=float, default=90, help="begin no other round after that")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; others follow")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    figures = Figures()
    began = time.monotonic()
    for number in range(options.rounds):
        if time.monotonic() - began > options.seconds:
            break
        fuzz(options.seed + number, options.examples, figures, began + options.seconds)
    print(f"seeds {options.seed} to {options.seed + figures.rounds - 1}")
    print(f"examples: {figures.examples}, words overwritten: {figures.words}")
    print("calls:", ", ".join(f"{what} {n}" for what, n in sorted(figures.came.items())))
    print(f"crashes: {figures.crashes}, hangs: {figures.hangs}, other: {figures.other_failures}")
    print(*(f"  {failure}" for failure in figures.failures), sep="\n")
    print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return int(bool(figures.failures))


if __name__ == "__main__":
    sys.exit(main())
