"""Make each system call of the core fail, wherever it is made, and see what the caller gets.

    make faults                                   # builds a core whose calls can fail, runs this
    python tests/faults/system_calls.py [--short] [--json FILE] [SCENARIO...]

Each scenario runs once for each place that makes a call in it, for the first few times it comes by,
for each error that the call can give, and, where an error can last, once with all further calls of
that name failing too. The caller must get what it asked for or an exception that fits the error;
what was put must be there or not, as the caller was told; and when calls work again the object must
work and nothing be left behind. The status is 0 if all that was so and no place was left out.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import faulthandler
import gc
import json
import os
import queue as queue_errors
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import connection, context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

import numpy
from core_memory import HEIR, LOCK, PAGE, a_period_passes, assert_tiled, words

import mpipc
from mpipc import SegmentCorrupt, ShutDown, _core
from mpipc.mechanisms import shm
from mpipc.testing import settle, snapshot

ctx = mpipc.get_context("shm", start_method="fork")
spawn = mpipc.get_context("shm", start_method="spawn")

# What each call can fail with, but for what would be untrue: EAGAIN of a ready descriptor, or ESRCH
# of a process that lives.
ERRORS = {
    "close": ["EINTR", "EIO"],
    "fallocate": ["ENOSPC", "ENOMEM", "EINTR"],
    "fcntl": ["EPERM"],
    "fstat": ["ENOMEM"],
    "futex_wait": ["EINTR", "EAGAIN", "ENOMEM"],
    "futex_requeue": ["EAGAIN", "ENOSYS"],
    "futex_wake": ["ENOSYS"],
    "get_robust_list": ["ENOSYS"],
    "getrlimit": ["EPERM"],
    "ioctl": ["ENOMEM"],
    "kill": ["EPERM"],
    "madvise": ["EINVAL", "ENOMEM"],
    "memfd_create": ["EMFILE", "ENOMEM", "ENOSYS", "EINVAL"],
    "mmap": ["ENOMEM", "EAGAIN"],
    "munmap": ["ENOMEM"],
    "open": ["EMFILE", "ENOMEM", "EINTR"],
    "pipe2": ["EMFILE", "ENFILE"],
    "ppoll": ["EINTR", "ENOMEM"],
    "read": ["EINTR", "ENOMEM"],
    "recv": ["EINTR", "ENOMEM"],
    "sched_getaffinity": ["EINVAL"],
    "sched_getcpu": ["ENOSYS"],
    "send": ["EINTR", "ENOMEM"],
    "socketpair": ["EMFILE", "ENOMEM"],
    "write": ["EINTR", "EIO"],
}
# What may go on failing: the machine is full, the process has all descriptors that it may have, a
# filter forbids the call. (Without futexes not even Python's threads would run.)
LASTING = set(ERRORS) - {"close", "futex_wait", "futex_wake", "kill", "recv"}
PASSING = ("EINTR", "EAGAIN")
OF_MEMORY = ("ENOMEM", "ENOSPC", "EAGAIN")

# What else the core takes from the C library: none of it makes a call that can fail.
HARMLESS = {
    *("clock_gettime", "getpid", "sched_yield", "_sched_cpucount", "_errno_location"),
    *("memcmp", "memcpy", "memmove", "memset", "snprintf", "strchr", "strcmp", "strlen"),
    *("strrchr", "strtoull", "exit", "_cxa_finalize", "_gmon_start__", "_tls_get_addr"),
    *("_stack_chk_fail", "abort"),
    "_register_atfork",  # once, when the core is imported, which fails if it does
    *("_aarch64_ldadd4_acq_rel", "_aarch64_swp4_acq_rel", "_aarch64_cas4_acq_rel"),
    *("_aarch64_ldadd8_acq_rel", "_aarch64_swp8_acq_rel", "_aarch64_cas8_acq_rel"),
}

PASSAGES = 3
SOON = 5.0
HANGS_AFTER = 30.0
KB = 1000


class Faults:
    """``with faults:`` is where the call fails; what the block raises is kept in `raised`."""

    def __init__(self, index: int, passage: int, error: int, lasting: bool) -> None:
        self.plan = (index, passage, error, lasting)
        self.error = errno.errorcode.get(error)
        self.raised: Exception | None = None
        self.passed: list[int] = []
        self.failed: list[int] = []

    def __enter__(self) -> None:
        _core.fail_at(*self.plan)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        _core.fail_no_more()
        sites = _core.call_sites()
        self.passed = [passed for _, _, passed, _ in sites]
        self.failed = [failed for _, _, _, failed in sites]
        if raised is not None and isinstance(raised, Exception):
            self.raised = raised.with_traceback(None)
            return not isinstance(raised, AssertionError)
        return False


def struck() -> set[str]:
    """The calls that have failed."""
    return {call for call, _, _, failed in _core.call_sites() if failed}


Scenario = Callable[[Faults], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__] = play
    return play


# -- queues --------------------------------------------------------------------------------------


def carry_on(queue: Any, waiting: list[bytes]) -> None:
    """What waits is there, nothing else is, and the queue works; its memory is in order."""
    if waiting and queue.segment.inspect()["exposed"]:
        assert connection.wait([queue._reader], 0), "not readable though messages wait"
    for message in waiting:
        assert queue.get(timeout=SOON) == message, "not the message that was put"
    assert queue.empty() and queue.qsize() == 0, "a message too many"
    for size in (0, 100, 5 * KB, 70 * KB, 3 * KB * KB, 10):
        queue.put(bytes(size), timeout=SOON)
        assert queue.get(timeout=SOON) == bytes(size)
    report = queue.segment.inspect()
    assert_tiled(report)
    assert report["count"] == report["backlog"] == 0, report
    if report["exposed"]:
        queue.put(1)
        assert connection.wait([queue._reader], SOON), "not readable though a message waits"
        queue.get()
        assert not connection.wait([queue._reader], 0), "readable though no message waits"


def put_all(queue: Any, messages: list[bytes], faults: Faults) -> list[bytes]:
    """Those that were put before a call failed."""
    done = []
    with faults:
        for message in messages:
            queue.put(message)
            done.append(message)
    return done


def filled(sizes: list[int], exposed: bool = False, maxsize: int = 0) -> tuple[Any, list[bytes]]:
    queue = ctx.Queue(maxsize)
    messages = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    for message in messages:
        queue.put(message)
    if exposed:
        queue._reader.fileno()
    return queue, messages


@scenario
def make_queue(faults: Faults) -> None:
    queue = None
    with faults:
        queue = ctx.Queue()
    carry_on(queue or ctx.Queue(), [])


@scenario
def first_put(faults: Faults) -> None:
    queue = ctx.Queue()
    carry_on(queue, put_all(queue, [b"first"], faults))


@scenario
def first_get(faults: Faults) -> None:
    """The first look at a queue that another process has filled."""
    queue = ctx.Queue()
    started = ctx.Process(target=queue.put, args=(b"of another",))
    started.start()
    started.join()
    taken = []
    with faults:
        taken.append(queue.get(timeout=SOON))
    carry_on(queue, [] if taken else [b"of another"])


@scenario
def put_small(faults: Faults) -> None:
    queue, before = filled([5], exposed=True)
    carry_on(queue, before + put_all(queue, [b"small"], faults))


@scenario
def put_into_empty(faults: Faults) -> None:
    """Which rings the bell."""
    queue, before = filled([], exposed=True)
    carry_on(queue, before + put_all(queue, [b"small"], faults))


@scenario
def put_large_into_empty(faults: Faults) -> None:
    queue, before = filled([], exposed=True)
    carry_on(queue, before + put_all(queue, [bytes(30 * KB)], faults))


@scenario
def put_growing(faults: Faults) -> None:
    """Page after page, in one process's window and beyond it."""
    queue, before = filled([100, 100 * KB])
    sizes = [1 * KB] * 90 + [700 * KB, 3 * KB * KB, 70 * KB * KB]
    carry_on(queue, before + put_all(queue, [bytes(size) for size in sizes], faults))


@scenario
def put_into_short_memory(faults: Faults) -> None:
    """With dead holders to be looked for, and room only up to max_bytes."""
    queue = mpipc.get_context("shm", start_method="fork", max_bytes=8 << 20).Queue()

    holder = ctx.Process(target=die_holding, args=(queue,))
    holder.start()
    holder.join()
    done = put_all(queue, [bytes(300 * KB)] * 20, faults)
    carry_on(queue, done)


def die_holding(queue: Any) -> None:
    """Be killed while a message's memory is in the hands."""

    class Killer:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.kill, (os.getpid(), signal.SIGKILL)

    queue.put([bytes(200 * KB), Killer()])
    queue.get()


@scenario
def get_small(faults: Faults) -> None:
    queue, before = filled([5, 6, 7], exposed=True)
    get_all(queue, before, faults)


@scenario
def get_last(faults: Faults) -> None:
    queue, before = filled([5], exposed=True)
    get_all(queue, before, faults)


@scenario
def get_large(faults: Faults) -> None:
    queue, before = filled([100 * KB, 5, 3 * KB * KB])
    get_all(queue, before, faults)


@scenario
def get_grown(faults: Faults) -> None:
    """Memory that another process has added."""
    queue, before = filled([5])
    more = [bytes(2 * KB * KB), bytes(80 * KB * KB)]
    started = ctx.Process(target=lambda: [queue.put(message) for message in more])
    started.start()
    started.join()
    get_all(queue, before + more, faults)


def get_all(queue: Any, messages: list[bytes], faults: Faults) -> None:
    taken = 0
    with faults:
        for message in messages:
            assert queue.get(timeout=SOON) == message
            taken += 1
    carry_on(queue, messages[taken:])


@scenario
def wait_for_message(faults: Faults) -> None:
    queue = ctx.Queue()
    taken = []
    with faults, later(lambda: queue.put(b"late")):
        taken.append(queue.get(timeout=SOON))
    carry_on(queue, [] if taken else [b"late"])


@scenario
def wait_in_vain(faults: Faults) -> None:
    queue = ctx.Queue()
    queue.qsize()
    empty = False
    with faults:
        try:
            queue.get(timeout=0.02)
        except queue_errors.Empty:
            empty = True
    assert empty or faults.raised
    carry_on(queue, [])


def idle() -> Any:
    """A queue with much memory, which it has not needed for a while."""
    queue, _ = filled([9 * KB * KB])
    queue.get()
    a_period_passes(queue.segment)
    return queue


def wait_for_nothing(queue: Any) -> None:
    with contextlib.suppress(queue_errors.Empty):
        queue.get(timeout=0.25)  # longer than a slice


@scenario
def give_memory_back(faults: Faults) -> None:
    queue = idle()
    with faults:
        wait_for_nothing(queue)
    carry_on(queue, [])


@scenario
def use_what_was_given_back(faults: Faults) -> None:
    """With enough for a message in it, and only together with what lies before it."""
    queue = idle()
    wait_for_nothing(queue)
    assert os.fstat(queue.segment.fd).st_blocks < 5 * KB * KB // 512, "nothing was given back"
    carry_on(queue, put_all(queue, [bytes(4 * KB * KB), bytes(8 * KB * KB)], faults))


@scenario
def wait_for_room(faults: Faults) -> None:
    queue, before = filled([5, 5], maxsize=2)
    taken: list[bytes] = []
    put = False
    with faults, later(lambda: taken.append(queue.get())):
        queue.put(b"late", timeout=SOON)
        put = True
    assert taken == before[:1]
    rest = before[1:] + [b"late"] * put
    assert [queue.get(timeout=SOON) for _ in rest] == rest
    carry_on_bounded(queue)


def carry_on_bounded(queue: Any) -> None:
    assert queue.empty()
    for size in (5, 70 * KB, 5):
        queue.put(bytes(size))
        assert queue.get(timeout=SOON) == bytes(size)


@scenario
def simple_queue(faults: Faults) -> None:
    """Its sender waits for a backlog to shrink."""
    queue = ctx.SimpleQueue()
    message = bytes(400 * KB)
    queue.put(message)
    queue.put(message)
    taken: list[bytes] = []
    done = 2
    with faults, later(lambda: taken.append(queue.get())):
        queue.put(message)
        done += 1
    for _ in range(done - len(taken)):
        taken.append(queue.get())
    assert taken == [message] * done and queue.empty()
    queue.put(b"more")
    assert queue.get() == b"more"


@scenario
def poll_and_fileno(faults: Faults) -> None:
    queue, before = filled([5])
    with faults:
        assert queue._reader.poll(0.1)
        queue._reader.fileno()
    carry_on(queue, before)


@scenario
def poll_empty(faults: Faults) -> None:
    queue = ctx.Queue()
    with faults, later(lambda: queue.put(b"late")):
        queue._reader.fileno()
        assert queue._reader.poll(SOON)
    carry_on(queue, [b"late"])


@scenario
def recover_queue(faults: Faults) -> None:
    """A process was killed within the queue's lock."""
    queue, before = filled([5, 50 * KB, 7], exposed=True)
    with words(queue.segment) as memory:
        memory.owner_died()
    with faults:
        queue.segment.inspect()
        queue._reader.fileno()
    carry_on(queue, before)


@scenario
def recover_empty_queue(faults: Faults) -> None:
    """It had rung and was killed before it counted that."""
    queue, _ = filled([], exposed=True)
    queue.qsize()
    ring = os.dup(queue._writer._handle)
    with words(queue.segment) as memory:
        memory.owner_died()
        os.write(ring, b"\0")
    os.close(ring)
    with faults:
        assert not queue._reader.poll(0)
    carry_on(queue, [])


@scenario
def recover_unrung(faults: Faults) -> None:
    """Recovery finds a message and no byte in the descriptor."""
    queue, before = filled([5], exposed=True)
    os.read(queue._reader._handle, 1)
    with words(queue.segment) as memory:
        memory.owner_died()
    with faults:
        queue._reader.poll(0)
    carry_on(queue, before)


@scenario
def recover_as_sender(faults: Faults) -> None:
    """Only the writing end is open here."""
    reader, writer = ctx.Pipe(False)
    writer.send_bytes(b"1")
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            writer.close()
            time.sleep(SOON)
        os._exit(0)
    reader.close()
    with words(writer.segment) as memory:
        memory.owner_died()
    with faults:
        writer.send_bytes(b"2")
    writer.send_bytes(b"3")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def dead_process() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@scenario
def lock_of_the_vanished(faults: Faults) -> None:
    """The holder of the queue's lock is gone and the kernel has not marked it."""
    queue, before = filled([5])
    with words(queue.segment) as memory:
        memory.set32(LOCK, dead_process())
    get_all(queue, before, faults)


@scenario
def tasks(faults: Faults) -> None:
    queue = ctx.JoinableQueue()
    for number in range(3):
        queue.put(number)
    taken = done = 0
    with faults:
        for _ in range(3):
            queue.get()
            taken += 1
            queue.task_done()
            done += 1
        queue.join()
    for _ in range(3 - taken):
        queue.get()
    for _ in range(queue._unfinished()):
        queue.task_done()
    queue.join()
    carry_on(queue, [])


@scenario
def wait_for_tasks(faults: Faults) -> None:
    queue = ctx.JoinableQueue()
    queue.put(1)

    def work() -> None:
        queue.get()
        queue.task_done()

    with faults, later(work):
        queue.join()
    assert queue.empty() and not queue._unfinished()


@scenario
def tasks_of_the_dead(faults: Faults) -> None:
    queue = ctx.JoinableQueue()
    queue.put(1)
    taker = ctx.Process(target=lambda: (queue.get(), os.kill(os.getpid(), signal.SIGKILL)))
    taker.start()
    taker.join()
    told = False
    with faults:
        try:
            queue.join()
        except mpipc.OwnerDied:
            told = True
    assert told or faults.raised
    queue.task_done()
    queue.join()


@scenario
def put_values(faults: Faults) -> None:
    """Messages that take no pickle."""
    queue = ctx.Queue()
    put = put_all(queue, VALUES, faults)
    for value in put:
        assert same(queue.get(timeout=SOON), value)
    carry_on(queue, [])


@scenario
def get_values(faults: Faults) -> None:
    queue = ctx.Queue()
    for value in VALUES:
        queue.put(value)
    taken = 0
    with faults:
        for value in VALUES:
            assert same(queue.get(timeout=SOON), value)
            taken += 1
    for value in VALUES[taken:]:
        assert same(queue.get(timeout=SOON), value)
    carry_on(queue, [])


VALUES: list[Any] = [5, "text", (1.5, ["a", None], {"b": True}), numpy.arange(10)]
VALUES += [numpy.arange(90 * KB), b"bytes", [numpy.arange(50 * KB), "and a pickle"]]


def same(one: Any, other: Any) -> bool:
    if isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(numpy.all(one == other))


def assert_shut(queue: Any) -> None:
    for call in (lambda: queue.put(1), lambda: queue.get(timeout=SOON)):
        shut = False
        try:
            call()
        except ShutDown:
            shut = True
        assert shut, "goes on after shutdown()"


@scenario
def shut_down(faults: Faults) -> None:
    """Who waits for a message is told."""
    queue = ctx.Queue()
    shut = False
    with faults, later(queue.shutdown):
        try:
            queue.get(timeout=SOON)
        except ShutDown:
            shut = True
    assert shut or faults.raised
    assert_shut(queue)


@scenario
def shut_down_at_once(faults: Faults) -> None:
    """Which throws away what waits."""
    queue = ctx.JoinableQueue()
    queue._reader.fileno()
    for message in (b"1", bytes(90 * KB), b"3"):
        queue.put(message)
    with faults:
        queue.shutdown(immediate=True)
    if faults.raised:
        queue.shutdown(immediate=True)
    queue.join()
    assert queue.empty()
    assert_shut(queue)
    assert_tiled(queue.segment.inspect())


def in_a_dead_hand(context: Any, messages: list[bytes]) -> Any:
    """A queue, exposed, all of whose messages another has taken and then been killed."""
    queue = context.JoinableQueue(redeliver=True)
    queue._reader.fileno()
    for message in messages:
        queue.put(message)

    def take() -> None:
        for _ in messages:
            queue.get()
        os.kill(os.getpid(), signal.SIGKILL)

    taker = ctx.Process(target=take)
    taker.start()
    taker.join()
    return queue


@scenario
def redeliver(faults: Faults) -> None:
    """What cannot be handed back, as no doorbell can be rung, is handed back by who looks next."""
    messages = [b"1", bytes(90 * KB)]
    queue = in_a_dead_hand(ctx, messages)
    with faults:
        try:
            assert queue.get(timeout=0.02) == messages[0]
            del messages[0]
            queue.task_done()
        except queue_errors.Empty:
            assert struck()
    if queue.qsize():
        assert connection.wait([queue._reader], 0), "not readable though messages wait"
    for message in messages:
        assert queue.get(timeout=SOON) == message
    while queue._unfinished():
        queue.task_done()
    assert not queue.segment.inspect()["takers"]
    queue.put(b"more")
    assert connection.wait([queue._reader], SOON) and queue.get(timeout=SOON) == b"more"
    queue.task_done()
    assert not connection.wait([queue._reader], 0)
    assert_tiled(queue.segment.inspect())


@scenario
def join_and_redeliver(faults: Faults) -> None:
    """Who waits for all tasks looks for dead takers too."""
    queue = in_a_dead_hand(ctx, [b"1"])

    def work() -> None:
        try:
            queue.get(timeout=0.3)
        except queue_errors.Empty:
            assert struck()
            _core.fail_no_more()
            queue.get(timeout=SOON)
        queue.task_done()

    with faults, later(work):
        queue.join()
    if queue._unfinished():
        work()
    queue.join()


# -- forks of who still looks into messages ------------------------------------------------------


@contextlib.contextmanager
def stderr_read() -> Iterator[list[str]]:
    """What this process and its children write there."""
    said: list[str] = []
    read, write = os.pipe()
    kept = os.dup(2)
    os.dup2(write, 2)
    os.close(write)
    try:
        yield said
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.set_blocking(read, False)
        with os.fdopen(read, "rb") as told:
            said.append((told.read() or b"").decode())


def forked(check: Callable[[], bool], let_go: Callable[[], None]) -> int:
    """Fork, let go of the views here, then let the child check its own; how it ended."""
    go, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.close(tell)
            os.read(go, 1)
            status = 0 if check() else 2
        os._exit(status)
    os.close(go)
    let_go()
    os.close(tell)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def views_of(queue: Any) -> list[Any]:
    queue.put(numpy.arange(5 * KB))
    queue.put(numpy.arange(50 * KB))
    return [queue.get() for _ in range(2)]


def intact(views: list[Any]) -> bool:
    return all(numpy.array_equal(view, numpy.arange(len(view))) for view in views)


def held_in(queue: Any) -> list[int]:
    """Where the extents begin that this process holds."""
    extents = queue.segment.inspect()["extents"]
    return [page * PAGE for page, _, holder in extents if holder == os.getpid()]


def reuse(queue: Any) -> None:
    """Fill all memory that is free with something else."""
    for _ in range(20):
        queue.put(numpy.full(5 * KB, 77))
        queue.put(numpy.full(50 * KB, 77))
        queue.get(), queue.get()


OF_OTHERS = 1 << 22 | os.getpid()  # an owner tag; the driver's, but for the start time
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@scenario
def send_allotted(faults: Faults) -> None:
    """An array that is allocated in a growing queue and sent without a copy."""
    queue = ctx.Queue(views=True)
    arrays, sent = [], 0
    with faults:
        for size in (10_000, 600_000):
            arrays.append(ctx.empty(size, to=queue))
            arrays[-1][:] = numpy.arange(size)
            queue.put(arrays[-1])
            sent += 1
    if faults.raised is not None:
        assert isinstance(faults.raised, (MemoryError, OSError)), faults.raised
    assert queue.qsize() == sent or faults.raised is None
    taken = [queue.get(timeout=SOON) for _ in range(queue.qsize())]
    assert intact(taken) and intact(arrays[:sent])
    del arrays, taken
    array = ctx.empty(20_000, to=queue)
    array[:] = numpy.arange(20_000)
    queue.put(array)
    assert intact([queue.get(), array])


@scenario
def fork_with_views(faults: Faults) -> None:
    """The child holds what its parent holds, or is killed and says so."""
    queue = ctx.SimpleQueue(views=True)
    views = views_of(queue)
    status: list[int] = []
    heirs: list[int] = []

    def let_go() -> None:
        heirs.extend(memory.get32(where + HEIR) for where in held)
        _core.fail_no_more()
        views.clear()
        reuse(queue)

    with words(queue.segment) as memory:
        held = held_in(queue)
        with stderr_read() as said, faults:
            status.append(forked(lambda: intact(views), let_go))
    if not status:
        assert faults.raised
    elif status[0] in KILLED:
        assert struck() and "killed while being forked" in said[0]
    else:
        assert status == [0], status
        inherits = "pipe2" not in struck() and ("read" not in struck() or faults.error == "EINTR")
        assert all(heirs) or not inherits, "the parent did not wait for its child"
    views.clear()
    queue.put(b"more")
    assert queue.get() == b"more"
    assert_tiled(queue.segment.inspect())


@scenario
def fork_of_the_lost(faults: Faults) -> None:
    """Others took what the parent held, as if it had been killed: its child cannot go on."""
    queue = ctx.SimpleQueue(views=True)
    queue.put(numpy.arange(5 * KB))
    view = queue.get()
    (held,) = held_in(queue)
    status = None
    with words(queue.segment) as memory:
        tag = memory.get32(held)
        memory.set32(held, OF_OTHERS)
        with stderr_read() as said, faults:
            status = forked(lambda: True, lambda: None)
        memory.set32(held, tag)
    if struck() != {"pipe2"}:  # then nothing is left to be inherited
        assert status in KILLED, f"the child goes on, {status}"
    assert struck() or "killed while being forked" in said[0]
    del view
    queue.put(b"more")
    assert queue.get() == b"more"
    assert_tiled(queue.segment.inspect())


# -- pipes ---------------------------------------------------------------------------------------


def pass_through(reader: Any, writer: Any) -> None:
    for size in (0, 10, 70 * KB, 3):
        writer.send_bytes(bytes(size))
        assert reader.poll(SOON) and reader.recv_bytes() == bytes(size)


@scenario
def make_pipe(faults: Faults) -> None:
    ends = None
    with faults:
        ends = ctx.Pipe()
    first, second = ends or ctx.Pipe()
    pass_through(first, second)
    pass_through(second, first)


@scenario
def send(faults: Faults) -> None:
    reader, writer = ctx.Pipe(False)
    messages = [b"1", bytes(20 * KB), b"3", bytes(400 * KB)]
    done = 0
    with faults:
        for message in messages:
            writer.send_bytes(message)
            done += 1
    for message in messages[:done]:
        assert reader.poll(SOON) and reader.recv_bytes() == message
    pass_through(reader, writer)


@scenario
def receive(faults: Faults) -> None:
    reader, writer = ctx.Pipe(False)
    messages = [b"1", bytes(20 * KB), b"3"]
    for message in messages:
        writer.send_bytes(message)
    into = bytearray(30 * KB)
    done = 0
    with faults:
        for message in messages:
            assert into[: reader.recv_bytes_into(into)] == message
            done += 1
    for message in messages[done:]:
        assert reader.recv_bytes() == message
    pass_through(reader, writer)


@scenario
def receive_late(faults: Faults) -> None:
    """Long enough after the call to sleep on the doorbell."""
    reader, writer = ctx.Pipe(False)
    taken = []
    with faults, later(lambda: writer.send_bytes(b"late")):
        taken.append(reader.recv_bytes())
    if not taken:
        assert reader.recv_bytes() == b"late"
    pass_through(reader, writer)


@scenario
def receive_the_end(faults: Faults) -> None:
    reader, writer = ctx.Pipe(False)
    ended = False
    with faults, later(writer.close):
        try:
            reader.recv_bytes()
        except EOFError:
            ended = True
    assert ended or faults.raised


@scenario
def send_to_nobody(faults: Faults) -> None:
    reader, writer = ctx.Pipe(False)
    writer.send_bytes(b"1")
    reader.close()
    with faults, contextlib.suppress(BrokenPipeError):
        writer.send_bytes(b"2")
        time.sleep(0.001)  # for so long a reader that was there is believed to be
        writer.send_bytes(b"3")
    time.sleep(0.001)
    broken = False
    try:
        writer.send_bytes(b"4")
    except BrokenPipeError:
        broken = True
    assert broken


@scenario
def close_pipe(faults: Faults) -> None:
    first, second = ctx.Pipe()
    pass_through(first, second)
    with faults:
        second.close()
    ended = False
    try:
        first.recv_bytes()
    except EOFError:
        ended = True
    assert ended


class Forgotten(_core.ConnectionCore):
    """An end that nothing of Python's closes."""

    def __del__(self) -> None:
        """Nor we."""


@scenario
def forget(faults: Faults) -> None:
    """All that is closed when nobody knows it any more."""
    queue, _ = filled([5, 80 * KB * KB])
    pipe = ctx.Pipe()
    bare = _core.open_pipe(Forgotten, True, 1 << 20, 0)
    arrays = [ctx.RawArray("b", size) for size in (200 * KB, 700 * KB)]  # one's memory is kept
    with faults:
        del queue, pipe, bare, arrays
        gc.collect()


# -- locks and their kind ------------------------------------------------------------------------


@contextlib.contextmanager
def later(do: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread, a little later; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def work() -> None:
        time.sleep(0.02)
        for _ in range(2):  # the call that fails may be one of this thread's
            try:
                do()
                return
            except (OSError, MemoryError) as error:
                raised.append(error)
            _core.fail_no_more()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * SOON)
        assert not thread.is_alive(), "the other thread hangs"
    assert len(raised) < 2, raised


def usable(lock: Any) -> None:
    """Whether it can be taken here and, once given back, by another process."""
    assert lock.acquire(timeout=SOON)
    lock.release()
    other = ctx.Process(target=take_and_give, args=(lock,))
    other.start()
    other.join()
    assert other.exitcode == 0


def take_and_give(lock: Any) -> None:
    assert lock.acquire(timeout=SOON)
    lock.release()


@scenario
def make_lock(faults: Faults) -> None:
    """The first small object of a process, which makes its arena."""
    lock = None
    with faults:
        lock = ctx.Lock()
    usable(lock or ctx.Lock())


@scenario
def make_many(faults: Faults) -> None:
    """Until the arena is given more memory, and then another arena is needed."""
    locks = []
    with faults:
        for _ in range(300):
            locks.append(ctx.Lock())
        blocks = [_core.new_block(50 * KB) for _ in range(30)]
        del blocks
    usable(ctx.Lock())


@scenario
def make_array(faults: Faults) -> None:
    array = None
    with faults:
        array = ctx.Array("d", 50 * KB)
    array = array or ctx.Array("d", 50 * KB)
    array[0] = array[-1] = 1.5
    assert sum(array[:]) == 3.0
    usable(array.get_lock())


@scenario
def take_lock(faults: Faults) -> None:
    lock = ctx.RLock()
    with faults, lock:
        pass
    usable(lock)


@scenario
def hold_lock(faults: Faults) -> None:
    """Others must not take the holder for dead, whatever failed when it wrote its name."""
    lock = ctx.Lock()
    held = False
    with faults:
        held = lock.acquire()
    assert held or faults.raised
    other = ctx.Process(target=refuse, args=(lock,))
    other.start()
    other.join()
    assert other.exitcode == 0, "another process took a lock that is held"
    lock.release()
    usable(lock)


def refuse(lock: Any) -> None:
    assert not lock.acquire(timeout=0.05)


@scenario
def wait_for_lock(faults: Faults) -> None:
    lock = ctx.Lock()
    lock.acquire()
    taken = False
    with faults, later(lock.release):
        taken = lock.acquire(timeout=SOON)
    if taken:
        lock.release()
    usable(lock)


@scenario
def lock_of_the_dead(faults: Faults) -> None:
    lock = ctx.Lock()
    holder = ctx.Process(target=lambda: (lock.acquire(), os.kill(os.getpid(), signal.SIGKILL)))
    holder.start()
    holder.join()
    with faults:
        assert lock.acquire(timeout=SOON)
        lock.release()
    usable(lock)


@scenario
def lock_without_descriptors(faults: Faults) -> None:
    """No descriptor is left with which to look whether the holder lives."""
    lock = ctx.Lock()
    holder = ctx.Process(target=hold_until_killed, args=(lock,))
    holder.start()
    while lock.acquire(False):
        lock.release()
        time.sleep(0.001)
    _core.own_tag()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with faults:
            assert not lock.acquire(timeout=0.03), "taken from the living"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    holder.kill()
    holder.join()
    usable(lock)


def hold_until_killed(lock: Any) -> None:
    lock.acquire()
    time.sleep(SOON)


@scenario
def semaphore(faults: Faults) -> None:
    units = ctx.Semaphore(0)
    taken = False
    with faults, later(units.release):
        taken = units.acquire(timeout=SOON)
    if not taken:
        assert units.acquire(timeout=SOON)
    units.release()
    usable(units)


@scenario
def undo(faults: Faults) -> None:
    units = ctx.Semaphore(2, undo=True)
    held = 0
    with faults:
        for _ in range(2):
            units.acquire()
            held += 1
        for _ in range(2):
            units.release()
            held -= 1
    for _ in range(held):
        units.release()
    assert units.get_value() == 2
    usable(units)


@scenario
def undo_wait(faults: Faults) -> None:
    units = ctx.Semaphore(1, undo=True)
    units.acquire()
    taken = False
    with faults, later(units.release):
        taken = units.acquire(timeout=SOON)
    if taken:
        units.release()
    assert units.get_value() == 1
    usable(units)


@scenario
def undo_of_the_dead(faults: Faults) -> None:
    units = ctx.Semaphore(1, undo=True)
    holder = ctx.Process(target=lambda: (units.acquire(), os.kill(os.getpid(), signal.SIGKILL)))
    holder.start()
    holder.join()
    taken = False
    with faults:
        taken = units.acquire(timeout=SOON)
    if taken:
        units.release()
    usable(units)
    assert units.get_value() == 1


@scenario
def conditions(faults: Faults) -> None:
    condition = ctx.Condition()

    def notify() -> None:
        with condition:
            condition.notify()

    with faults, condition, later_holding(condition, notify):
        assert condition.wait(SOON)
    notified(condition)


@contextlib.contextmanager
def later_holding(condition: Any, do: Callable[[], None]) -> Iterator[None]:
    """As later(), and should the block fail the lock is given up for it."""
    with later(do):
        try:
            yield
        except BaseException:
            if condition._lock._semlock._is_mine():
                condition.release()
                do()
                condition.acquire()
            raise


def notified(condition: Any) -> None:
    def notify() -> None:
        with condition:
            condition.notify_all()

    with condition, later(notify):
        assert condition.wait(SOON)
    assert not condition._waiters()
    usable(condition._lock)


@scenario
def wait_for_nobody(faults: Faults) -> None:
    condition = ctx.Condition()
    with condition, faults:
        assert not condition.wait(0.02)
    notified(condition)


@scenario
def notify_the_dead(faults: Faults) -> None:
    condition = ctx.Condition()

    def wait() -> None:
        with condition:
            condition.wait(SOON)

    waiter = ctx.Process(target=wait)
    waiter.start()
    while not condition._waiters():
        time.sleep(0.001)
    waiter.kill()
    waiter.join()
    with condition, faults:
        condition.notify()
    notified(condition)


@scenario
def events(faults: Faults) -> None:
    event = ctx.Event()
    with faults, later(event.set):
        assert event.wait(SOON)
    assert event.is_set()
    event.clear()
    assert not event.wait(0.01)


@scenario
def barrier(faults: Faults) -> None:
    barrier = ctx.Barrier(2)
    with faults, later(lambda: barrier.wait(SOON)):
        barrier.wait(SOON)
    barrier.reset()
    with later(lambda: barrier.wait(SOON)):
        barrier.wait(SOON)


# -- what arrives in a spawned process -----------------------------------------------------------


class Parcel:
    """What a spawned process gets: pickled, and each descriptor inherited."""

    def __init__(self, thing: object) -> None:
        self.fds: list[int] = []
        context.set_spawning_popen(self)
        try:
            self.data = bytes(ForkingPickler.dumps(thing))
        except BaseException:
            for fd in self.fds:
                os.close(fd)
            raise
        finally:
            context.set_spawning_popen(None)

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(os.dup(fd))
        return self.fds[-1]

    def DupFd(self, fd: int) -> Inherited:
        return Inherited(fd)


class Inherited:
    detached: set[int] = set()

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        self.detached.add(self.fd)
        return self.fd


def rebuild(thing: Any, faults: Faults) -> Any:
    """Unpickle in a process that does not know it yet; what failed is tried once more."""
    first, again = Parcel(thing), Parcel(thing)
    del thing
    gc.collect()
    arrived = None
    Inherited.detached.clear()
    with faults:
        arrived = ForkingPickler.loads(first.data)
    for fd in set(first.fds) - Inherited.detached:
        os.close(fd)
    if arrived is not None:
        for fd in again.fds:
            os.close(fd)
        return arrived
    return ForkingPickler.loads(again.data)


@scenario
def rebuild_queue(faults: Faults) -> None:
    carry_on(rebuild(spawn.Queue(), faults), [])


@scenario
def rebuild_pipe(faults: Faults) -> None:
    first, second = rebuild(spawn.Pipe(), faults)
    pass_through(first, second)
    pass_through(second, first)


@scenario
def rebuild_small(faults: Faults) -> None:
    """In an arena, each of another maker."""
    lock, value, condition, event, units = rebuild(
        (
            *(spawn.Lock(), spawn.Value("i", 5), spawn.Condition(), spawn.Event()),
            spawn.Semaphore(2, undo=True),
        ),
        faults,
    )
    assert value.value == 5
    usable(lock)
    usable(units)
    notified(condition)
    event.set()
    assert event.wait(0)


@scenario
def rebuild_known(faults: Faults) -> None:
    """The process has the queue already."""
    queue = spawn.Queue()
    queue.put(b"1")
    parcel = Parcel(queue)
    Inherited.detached.clear()
    arrived = None
    with faults:
        arrived = ForkingPickler.loads(parcel.data)
    for fd in set(parcel.fds) - Inherited.detached:
        os.close(fd)
    carry_on(arrived or queue, [b"1"])


@scenario
def pickle_everything(faults: Faults) -> None:
    queue, lock = spawn.Queue(), spawn.Lock()
    parcel = None
    with faults:
        parcel = Parcel((queue, lock))
    for fd in parcel.fds if parcel else ():
        os.close(fd)
    carry_on(queue, [])
    usable(lock)


@scenario
def little_address_space(faults: Faults) -> None:
    """Windows that can only be as large as they must, until there is no room for another."""
    queue = ctx.Queue()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), limits[1]))
    done = 0
    full = False
    try:
        with faults:
            try:
                for _ in range(1000):
                    queue.put(bytes(60 * KB))
                    done += 1
            except MemoryError:
                full = True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert full or faults.raised
    carry_on_after_full(queue, done)


def carry_on_after_full(queue: Any, done: int) -> None:
    for _ in range(done):
        assert queue.get(timeout=SOON) == bytes(60 * KB)
    for _ in range(10):
        queue.put(bytes(60 * KB))
        assert queue.get(timeout=SOON) == bytes(60 * KB)
    assert_tiled(queue.segment.inspect())


# -- the driver ----------------------------------------------------------------------------------


@dataclass
class Figures:
    """What was found."""

    calls: int
    places: int
    scenarios: int = 0
    failed_calls: int = 0
    failed_places: int = 0
    runs: int = 0
    faults: int = 0
    answered: int = 0
    raised: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    never_failed: list[str] = field(default_factory=list)


def readable(where: str) -> str:
    """The function's name without Cython's."""
    name = re.sub(r"^__pyx_p?[fw]_5mpipc_5_core", "", where)
    return re.sub(r"_\d+(?=[A-Za-z_])", ".", name).strip(".").removeprefix("_") or where


def labels() -> list[str]:
    """A name for each place: the call, the function, and a number where there are several."""
    names = [f"{call} in {readable(where)}" for call, where, _, _ in _core.call_sites()]
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if names.count(name) > 1 else name)
    return found


def fits(raised: Exception, error: str) -> bool:
    """Whether a caller that gets this exception is told what happened."""
    if error == "EINTR" or isinstance(raised, SegmentCorrupt):
        return False
    if isinstance(raised, MemoryError):
        return error in OF_MEMORY
    return isinstance(raised, OSError) and raised.errno == getattr(errno, error)


def live(name: str, faults: Faults) -> dict[str, Any]:
    """Play one scenario in this process, which is for nothing else."""
    wrong: list[str] = []
    sys.unraisablehook = lambda what: wrong.append(f"unraisable: {what.exc_value!r}")
    shm.Queue._on_queue_feeder_error = staticmethod(  # type: ignore[method-assign]
        lambda error, _: wrong.append(f"printed, not raised: {error!r}")
    )
    before = snapshot()
    try:
        SCENARIOS[name](faults)
    except BaseException as error:
        last = error.__traceback__
        while last and last.tb_next and last.tb_next.tb_frame.f_code.co_filename == __file__:
            last = last.tb_next
        wrong.append(f"{type(error).__name__}: {error} (line {last.tb_lineno if last else 0})")
        error.__traceback__ = None
    tag, raised = _core.own_tag(), faults.raised
    pid = os.fork()
    if pid == 0:
        os._exit(_core.owner_dead(tag))
    if os.waitpid(pid, 0)[1]:
        wrong.append("the others take this process for dead")
    if not wrong:
        # A mapping that could not be unmapped cannot be given back.
        stuck = ("munmap", _core.call_sites()[faults.plan[0]][0])
        left = settle(before, 2.0) if len(set(stuck)) == 2 else []
        # What others put into /dev/shm meanwhile is theirs.
        wrong += [line for line in left if "shared_memory" not in line or "mpipc" in line]
    return {
        "wrong": wrong,
        "passed": faults.passed,
        "failed": faults.failed,
        "raised": type(raised).__name__ if raised else None,
        "error": repr(raised),
        "fits": raised is None
        or (faults.plan[0] >= 0 and fits(raised, errno.errorcode[faults.plan[2]])),
    }


def play(name: str, index: int = -1, passage: int = 0, error: int = 0, lasting: bool = False):
    """Play one scenario in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        faulthandler.dump_traceback_later(HANGS_AFTER - 5, exit=True)
        told = live(name, Faults(index, passage, error, lasting))
        with os.fdopen(write, "w") as out:
            json.dump(told, out)
        os._exit(0)
    os.close(write)
    data = b""
    with os.fdopen(read, "rb") as told_here:
        if select.select([told_here], [], [], HANGS_AFTER)[0]:
            data = told_here.read()
        else:
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not data:
        return {"wrong": [f"hung or crashed, status {status}"], "passed": [], "failed": []}
    return json.loads(data)


def passages(count: int, short: bool) -> list[int]:
    some = list(range(1, min(count, 1 if short else PASSAGES) + 1))
    return some + [count] * (count > PASSAGES)


def plans(passed: list[int], short: bool) -> Iterator[tuple[int, int, str, bool]]:
    """What to let fail in a scenario that passes the places so often."""
    for index, count in enumerate(passed):
        call = _core.call_sites()[index][0]
        errors = ERRORS[call]
        for passage in passages(count, short):
            for error in errors[:1] if short and passage > 1 else errors:
                yield index, passage, error, False
                if error not in PASSING and call in LASTING:
                    yield index, passage, error, True


def run(names: list[str], short: bool) -> Figures:
    names_of = labels()
    figures = Figures(len({call for call, _, _, _ in _core.call_sites()}), len(names_of))
    struck: Counter[int] = Counter()
    raised: Counter[str] = Counter()

    def note(told: dict[str, Any], what: str) -> None:
        wrong = told["wrong"]
        if not told.get("fits", True):
            wrong = [f"raised {told['error']}", *wrong]
        if wrong:
            figures.wrong.append(f"{what}: {'; '.join(wrong)}")
            print("WRONG", figures.wrong[-1], flush=True)
        for index, count in enumerate(told["failed"]):
            struck[index] += count
        if told.get("raised"):
            raised[told["raised"]] += 1
        elif any(told["failed"]):
            figures.answered += 1

    for name in names:
        before = sum(struck.values())
        calm = play(name)
        note(calm, f"{name}, no fault")
        if calm.get("raised"):
            figures.wrong.append(f"{name}, no fault: raised {calm['error']}")
        for index, passage, error, lasting in plans(calm["passed"], short):
            figures.runs += 1
            what = f"{name}, {names_of[index]} fails with {error}, passage {passage}"
            told = play(name, index, passage, getattr(errno, error), lasting)
            note(told, what + ", lasting" * lasting)
        print(f"{name}: {sum(struck.values()) - before} faults", flush=True)
    figures.scenarios = len(names)
    figures.faults = sum(struck.values())
    figures.failed_places = len(struck := +struck)
    figures.raised = dict(raised)
    figures.never_failed = [label for i, label in enumerate(names_of) if not struck[i]]
    figures.failed_calls = len({_core.call_sites()[index][0] for index in struck})
    return figures


def unmarked() -> list[str]:
    """What the core calls in the C library past calls.h."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", _core.__file__], capture_output=True, text=True, check=True
    )
    names = re.findall(r"^\s+[Uw] _?(\w+)", listed.stdout, re.MULTILINE)
    known = HARMLESS | {call for call, _, _, _ in _core.call_sites()} | {"syscall"}
    return [
        name
        for name in names
        if not re.match(r"_?Py|ITM_", name) and name.removesuffix("64") not in known
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Make each system call of the core fail.")
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--short", action="store_true", help="fewer passages of each place")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if not _core.call_sites():
        print("no call of this core can be made to fail: MPIPC_FAULTS=1 pip install .")
        return 2
    warnings.simplefilter("ignore")
    began = time.monotonic()
    figures = run(options.names or list(SCENARIOS), options.short)
    print(f"\nsystem calls: {figures.failed_calls} made to fail of {figures.calls}")
    print(f"places that make one: {figures.failed_places} of {figures.places}")
    print(*(f"  never failed: {label}" for label in figures.never_failed), sep="\n")
    missed = unmarked()
    print(*(f"  called past calls.h: {name}" for name in missed), sep="\n")
    print(f"scenarios: {figures.scenarios}, run {figures.runs} times, faults: {figures.faults}")
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(figures.raised.items()))
    print(f"answered all the same: {figures.answered}; raised: {kinds}")
    print(f"wrong: {len(figures.wrong)}")
    print(*(f"  {line}" for line in figures.wrong), sep="\n")
    print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    whole = not options.names
    return int(bool(figures.wrong or missed) or (whole and bool(figures.never_failed)))


if __name__ == "__main__":
    sys.exit(main())
