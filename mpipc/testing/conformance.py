"""What every context must do, whatever mechanism it stands on; needs no test framework.

    python -m mpipc.testing mpipc-NAME --start-method spawn

A check is a function of this module called ``check_...`` that takes a context and raises if the
context does not do what multiprocessing promises. Each also leaves nothing behind. (Stock itself
passes all but check_killed_consumer_blocks_nobody.)
"""

from __future__ import annotations

import fnmatch
import hashlib
import multiprocessing
import os
import queue
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from mpipc.testing.leaks import no_leaks
from mpipc.testing.watchdog import watchdog

__all__ = ["Outcome", "checks", "conform"]

Check = Callable[[Any], None]

SOON = 30.0  # longer than anything takes that does not hang
SHORT = 0.05
DEEP = 5000  # more messages than any kernel keeps by default
MIB = 1 << 20
SIZES = (0, 1, 2, 100, 4095, 4096, 65535, 65537, MIB, 64 * MIB)


class Mismatch(AssertionError):
    """A context did something else than multiprocessing promises."""


def expect(found: Any, wanted: Any, what: str) -> None:
    """Raise unless the two are equal."""
    if found != wanted:
        raise Mismatch(f"{what}: expected {_short(wanted)}, found {_short(found)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}... ({len(text)} characters)"


@contextmanager
def raises(*errors: type[BaseException]) -> Iterator[None]:
    """Raise unless the block raises one of the errors."""
    try:
        yield
    except errors:
        return
    raise Mismatch(f"expected {' or '.join(error.__name__ for error in errors)}, nothing came")


@contextmanager
def children(ctx: Any, *calls: tuple[Any, ...], exitcode: int = 0) -> Iterator[list[Any]]:
    """Run each call, a function and its arguments, in a process; all must end with `exitcode`."""
    processes = [ctx.Process(target=target, args=args) for target, *args in calls]
    try:
        for process in processes:
            process.start()
        yield processes
        for process in processes:
            process.join(SOON)
            expect(process.exitcode, exitcode, f"exit status of {process.name}")
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
            process.close()


def pattern(size: int) -> bytes:
    """Bytes of which no two stretches are alike, so that what is lost or moved shows."""
    block = hashlib.sha512(size.to_bytes(8, "big")).digest()
    step = b"".join(i.to_bytes(4, "big") + block[:28] for i in range(min(size, MIB) // 32 + 1))
    return (step * (size // len(step) + 1))[:size]


# -- messages ------------------------------------------------------------------------------------


def check_queue_keeps_order(ctx: Any) -> None:
    q = ctx.Queue()
    with children(ctx, (put_all, q, range(2000))):
        expect([q.get(timeout=SOON) for _ in range(2000)], list(range(2000)), "items")
    close(q)


def check_simple_queue_keeps_order(ctx: Any) -> None:
    q = ctx.SimpleQueue()
    with children(ctx, (put_all, q, range(2000))):
        expect([q.get() for _ in range(2000)], list(range(2000)), "items")
    expect(q.empty(), True, "empty()")
    q.close()


def check_unbounded_queue_takes_all(ctx: Any) -> None:
    q = ctx.Queue()
    for i in range(DEEP):
        q.put_nowait(i)
    expect(q.qsize(), DEEP, "qsize()")
    expect([q.get(timeout=SOON) for _ in range(DEEP)], list(range(DEEP)), "items")
    expect(q.qsize(), 0, "qsize()")
    close(q)


def check_bounded_queue_is_full(ctx: Any) -> None:
    q = ctx.Queue(3)
    for i in range(3):
        q.put(i)
    expect(q.full(), True, "full()")
    for full in (q.put_nowait, lambda item: q.put(item, timeout=SHORT)):
        with raises(queue.Full):
            full(3)
    expect(q.get(timeout=SOON), 0, "the first item")
    q.put(3, timeout=SOON)
    expect([q.get(timeout=SOON) for _ in range(3)], [1, 2, 3], "items")
    with raises(queue.Empty):
        q.get_nowait()
    with raises(queue.Empty):
        q.get(timeout=SHORT)
    close(q)


def check_queue_of_one(ctx: Any) -> None:
    q = ctx.Queue(1)
    with children(ctx, (put_all, q, range(300))):
        expect([q.get(timeout=SOON) for _ in range(300)], list(range(300)), "items")
    close(q)


def check_message_sizes(ctx: Any) -> None:
    ours, theirs = ctx.Pipe()
    with children(ctx, (echo, theirs, len(SIZES))):
        theirs.close()
        for size in SIZES:
            data = pattern(size)
            ours.send_bytes(data)
            if ours.recv_bytes() != data:
                raise Mismatch(f"a message of {size} bytes came back changed")
        ours.close()


def check_queue_sizes(ctx: Any) -> None:
    q, back = ctx.Queue(), ctx.SimpleQueue()
    with children(ctx, (digest_all, q, back, len(SIZES))):
        for size in SIZES:
            q.put(pattern(size))
        for size in SIZES:
            expect(back.get(), hashlib.sha256(pattern(size)).hexdigest(), f"{size} bytes")
    close(q)
    back.close()


def check_many_producers_and_consumers(ctx: Any) -> None:
    q, back = ctx.Queue(50), ctx.SimpleQueue()
    producers, count = 4, 500
    puts = [(put_all, q, [(who, i) for i in range(count)]) for who in range(producers)]
    takes = [(forward, q, back)] * 4
    with children(ctx, *puts, *takes) as processes:
        for process in processes[:producers]:
            process.join(SOON)
        for _ in takes:
            q.put(None)
        seen: list[Any] = []
        for _ in takes:
            part = back.get()
            for who in range(producers):
                numbers = [i for sender, i in part if sender == who]
                expect(numbers, sorted(numbers), f"the order of producer {who}")
            seen += part
    expect(sorted(seen), [(who, i) for who in range(producers) for i in range(count)], "items")
    close(q)
    back.close()


def check_threads_beside_processes(ctx: Any) -> None:
    q, back = ctx.Queue(), ctx.SimpleQueue()
    with children(ctx, (forward, q, back), (forward, q, back)):
        threads = [
            threading.Thread(target=put_all, args=(q, [(who, i) for i in range(300)]))
            for who in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(2):
            q.put(None)
        seen = [item for _ in range(2) for item in back.get()]
    expect(sorted(seen), [(who, i) for who in range(3) for i in range(300)], "items")
    close(q)
    back.close()


def check_joinable_queue(ctx: Any) -> None:
    q = ctx.JoinableQueue()
    with children(ctx, (do_tasks, q), (do_tasks, q)):
        for i in range(100):
            q.put(i)
        q.join()
        for _ in range(2):
            q.put(None)
        q.join()
    with raises(ValueError):
        q.task_done()
    close(q)


# -- readiness and ends --------------------------------------------------------------------------


def check_fileno_can_be_polled(ctx: Any) -> None:
    for duplex in (True, False):
        reader, writer = ctx.Pipe(duplex)
        with reader, writer:
            for _ in range(3):
                expect(select.select([reader], [], [], 0)[0], [], "readable without a message")
                expect(reader.poll(SHORT), False, "poll()")
                writer.send("hello")
                expect(connection.wait([reader], SOON), [reader], "readable with a message")
                expect(reader.poll(), True, "poll()")
                expect(reader.recv(), "hello", "the message")


def check_wait_for_several(ctx: Any) -> None:
    pipes = [ctx.Pipe(False) for _ in range(4)]
    readers: list[Any] = [reader for reader, _ in pipes]
    with children(ctx, *((send_later, writer, i) for i, (_, writer) in enumerate(pipes))):
        for _, writer in pipes:
            writer.close()
        seen = []
        while readers:
            reader: Any
            for reader in connection.wait(readers, SOON):
                try:
                    seen.append(reader.recv())
                except EOFError:
                    readers.remove(reader)
                    reader.close()
    expect(sorted(seen), [0, 1, 2, 3], "messages")


def check_end_of_file(ctx: Any) -> None:
    for end in (close_all, kill_self):
        for duplex in (True, False):
            ours, theirs = ctx.Pipe(duplex)
            code = 0 if end is close_all else -signal.SIGKILL
            with children(ctx, (send_and_end, theirs, end), exitcode=code):
                theirs.close()
                expect(ours.recv(), "last", "the message before the end")
                with raises(EOFError):
                    ours.recv()
                with raises(EOFError):
                    ours.recv()
            ours.close()


def check_broken_pipe(ctx: Any) -> None:
    reader, writer = ctx.Pipe(False)
    reader.close()
    with raises(BrokenPipeError):
        writer.send("nobody will read this")
    writer.close()
    # Whoever is killed while a large message is on its way to it.
    reader, writer = ctx.Pipe(False)
    with children(ctx, (kill_self_when_readable, reader), exitcode=-signal.SIGKILL):
        reader.close()
        with raises(BrokenPipeError):
            fill(writer.send_bytes)
    writer.close()


def check_killed_sender_spoils_nothing(ctx: Any) -> None:
    ours, theirs = ctx.Pipe(False)
    with children(ctx, (send_and_end, theirs, kill_self), exitcode=-signal.SIGKILL) as (child,):
        child.join(SOON)
        theirs.send("next")
        expect([ours.recv(), ours.recv()], ["last", "next"], "messages")
    ours.close()
    theirs.close()


def check_killed_consumer_blocks_nobody(ctx: Any) -> None:
    """Stock does not do this: what a killed process holds of a queue, it holds for ever."""
    for make in (ctx.Queue, ctx.JoinableQueue, ctx.SimpleQueue):
        q = make()
        with children(ctx, (q.get,), exitcode=-signal.SIGKILL) as (child,):
            # Until it waits, as far as can be seen from here; sooner is one more case.
            time.sleep(4 * SHORT)
            child.kill()
            child.join()
            q.put("for the living")
            expect(q.get(), "for the living", f"an item of {type(q).__name__}")
        q.close()
        if make != ctx.SimpleQueue:
            q.join_thread()


def check_wrong_direction(ctx: Any) -> None:
    reader, writer = ctx.Pipe(False)
    with raises(OSError):
        writer.recv()
    with raises(OSError):
        reader.send(1)
    reader.close()
    writer.close()
    for call in (reader.recv, reader.fileno, lambda: writer.send(1)):
        with raises(OSError):
            call()


def check_connection_travels(ctx: Any) -> None:
    carrier, far = ctx.Pipe()
    with children(ctx, (send_back_through_received, far)):
        far.close()
        ours, theirs = ctx.Pipe()
        carrier.send(theirs)
        expect(carrier.recv(), "got it", "the answer")
        theirs.close()
        expect(ours.recv(), "through the pipe that travelled", "the message")
        ours.close()
        carrier.close()


# -- locks and what is built from them -----------------------------------------------------------


def check_lock_excludes(ctx: Any) -> None:
    for lock in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(1), ctx.BoundedSemaphore(1)):
        total = ctx.RawValue("i", 0)
        with children(ctx, *[(add, lock, total, 300)] * 3):
            pass
        expect(total.value, 900, f"additions under {type(lock).__name__}")


def check_lock_timeouts(ctx: Any) -> None:
    lock = ctx.Lock()
    lock.acquire()
    start = time.monotonic()
    expect(lock.acquire(False), False, "acquire(False)")
    expect(lock.acquire(timeout=0), False, "acquire(timeout=0)")
    expect(lock.acquire(timeout=-1), False, "acquire(timeout=-1)")
    expect(lock.acquire(timeout=SHORT), False, "acquire(timeout=...)")
    expect(time.monotonic() - start >= SHORT * 0.9, True, "it waited as long as it was told")
    lock.release()
    with raises(ValueError):
        lock.release()


def check_lock_released_by_another(ctx: Any) -> None:
    lock = ctx.Lock()
    lock.acquire()
    with children(ctx, (release_later, lock)):
        expect(lock.acquire(timeout=SOON), True, "acquire()")
    lock.release()


def check_rlock(ctx: Any) -> None:
    lock = ctx.RLock()
    with lock, lock, lock, children(ctx, (expect_locked, lock)):
        pass
    expect(lock.acquire(False), True, "acquire after the last release")
    lock.release()
    with raises(AssertionError):
        lock.release()


def check_semaphore_counts(ctx: Any) -> None:
    for value in (0, 1, 3, 100, 70_000):
        semaphore = ctx.Semaphore(value)
        expect(semaphore.get_value(), value, "get_value()")
        for _ in range(200):
            semaphore.release()
        expect(semaphore.get_value(), value + 200, "get_value()")
        for _ in range(200):
            expect(semaphore.acquire(False), True, "acquire(False)")
        expect(semaphore.get_value(), value, "get_value()")
    bounded = ctx.BoundedSemaphore(2)
    with raises(ValueError):
        bounded.release()
    with bounded, bounded:
        expect(bounded.acquire(False), False, "acquire of a third of two")


def check_condition(ctx: Any) -> None:
    condition, ready, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    with children(ctx, *[(wait_in, condition, ready, woken)] * 3):
        for _ in range(3):
            expect(ready.acquire(timeout=SOON), True, "a waiter came")
        with condition:
            condition.notify()
        expect(woken.acquire(timeout=SOON), True, "one was woken")
        expect(woken.acquire(timeout=SHORT), False, "another was woken")
        with condition:
            condition.notify_all()
        for _ in range(2):
            expect(woken.acquire(timeout=SOON), True, "the others were woken")
    with condition:
        expect(condition.wait(SHORT), False, "wait() that nobody ends")


def check_event(ctx: Any) -> None:
    event = ctx.Event()
    expect(event.wait(SHORT), False, "wait()")
    with children(ctx, (event.set,), (expect_set, event)):
        expect(event.wait(SOON), True, "wait()")
    event.clear()
    expect(event.is_set(), False, "is_set()")


def check_barrier(ctx: Any) -> None:
    barrier, total, lock = ctx.Barrier(3), ctx.RawValue("i", 0), ctx.Lock()
    with children(ctx, *[(pass_barrier, barrier, lock, total)] * 2):
        for round_ in range(1, 6):
            barrier.wait(SOON)
            expect(total.value, 2 * round_, "who came before")
            barrier.wait(SOON)
    barrier.abort()
    with raises(threading.BrokenBarrierError):
        barrier.wait()


# -- memory, pools, processes --------------------------------------------------------------------


def check_values_and_arrays(ctx: Any) -> None:
    value, array = ctx.Value("d", 1.5), ctx.Array("i", range(1000))
    raw, text = ctx.RawArray("B", MIB), ctx.Array("c", b"before")
    expect(bytes(raw), bytes(MIB), "a new RawArray")
    with children(ctx, (change, value, array, raw, text)):
        pass
    expect(value.value, 3.0, "the value")
    expect(array[:], [2 * i for i in range(1000)], "the array")
    expect((raw[0], raw[-1]), (1, 2), "the raw array")
    expect(text.value, b"after", "the string")


def check_pool(ctx: Any) -> None:
    with ctx.Pool(2) as pool:
        expect(pool.map(square, range(50), chunksize=3), [i * i for i in range(50)], "map()")
        expect(sorted(pool.imap_unordered(square, range(9))), [i * i for i in range(9)], "imap")
        with raises(ZeroDivisionError):
            pool.apply(divide, (1, 0))
        pool.close()
        pool.join()


def check_pickled_only_for_children(ctx: Any) -> None:
    q = ctx.Queue()
    for made in (q, ctx.Lock(), ctx.Condition(), ctx.Event(), ctx.Value("i")):
        with raises(RuntimeError):
            multiprocessing.reduction.ForkingPickler.dumps(made)
    close(q)


def check_live_objects_across_fork(ctx: Any) -> None:
    if ctx.get_start_method() != "fork":
        return
    q, lock, value, (ours, theirs) = ctx.Queue(), ctx.Lock(), ctx.Value("i", 0), ctx.Pipe()
    q.put("before")
    expect(q.get(timeout=SOON), "before", "an item of this process")
    ours.send("waiting")
    with lock, children(ctx, (use_inherited, q, lock, value, theirs)):
        expect(q.get(timeout=SOON), "from the child", "an item of the child")
        expect(ours.recv(), "waiting", "what waited in the pipe")
        lock.release()
        expect(q.get(timeout=SOON), 1, "the value under the lock")
        expect(lock.acquire(timeout=SOON), True, "acquire()")
    close(q)
    ours.close()
    theirs.close()


# -- signals and deaths --------------------------------------------------------------------------


def check_signals_during_calls(ctx: Any) -> None:
    for name in BLOCKING:
        ready, answer = ctx.Pipe(False)
        with children(ctx, (handle_signals, ctx, name, answer)) as (child,):
            answer.close()
            expect(ready.recv(), "waiting", name)
            # It cannot say that it sleeps by now; a signal that comes sooner is one more case.
            time.sleep(SHORT)
            os.kill(child.pid, signal.SIGUSR1)
            expect(ready.poll(SOON) and ready.recv(), "handled", f"SIGUSR1 during {name}")
            time.sleep(SHORT)
            os.kill(child.pid, signal.SIGINT)
            expect(ready.poll(SOON) and ready.recv(), "interrupted", f"SIGINT during {name}")
        ready.close()


def check_killed_family_leaves_nothing(ctx: Any) -> None:
    from mpipc.adapters import leases

    with children(ctx, (make_everything_and_die, ctx), exitcode=-signal.SIGKILL):
        pass
    for _ in leases.clean():
        pass  # what is left after that, the leak check around this check tells


# -- what the children do ------------------------------------------------------------------------


def close(q: Any) -> None:
    """Close a queue and wait until its items are in the pipe."""
    q.close()
    q.join_thread()


def put_all(q: Any, items: Any) -> None:
    for item in items:
        q.put(item)


def echo(end: Any, count: int) -> None:
    for _ in range(count):
        end.send_bytes(end.recv_bytes())


def digest_all(q: Any, back: Any, count: int) -> None:
    for _ in range(count):
        back.put(hashlib.sha256(q.get(timeout=SOON)).hexdigest())


def forward(q: Any, back: Any) -> None:
    back.put(list(iter(lambda: q.get(timeout=SOON), None)))


def do_tasks(q: Any) -> None:
    for _ in iter(q.get, None):
        q.task_done()
    q.task_done()


def send_later(end: Any, item: Any) -> None:
    time.sleep(SHORT)
    end.send(item)


def send_and_end(writer: Any, end: Callable[[Any], None]) -> None:
    writer.send("last")
    end(writer)


def close_all(writer: Any) -> None:
    writer.close()


def kill_self(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_self_when_readable(reader: Any) -> None:
    connection.wait([reader])
    os.kill(os.getpid(), signal.SIGKILL)


def fill(put: Callable[[bytes], None]) -> None:
    while True:
        put(bytes(16 * MIB))


def send_back_through_received(carrier: Any) -> None:
    end = carrier.recv()
    carrier.send("got it")
    end.send("through the pipe that travelled")
    end.close()


def add(lock: Any, total: Any, count: int) -> None:
    for _ in range(count):
        with lock:
            total.value += 1


def release_later(lock: Any) -> None:
    time.sleep(SHORT)
    lock.release()


def expect_locked(lock: Any) -> None:
    expect(lock.acquire(timeout=SHORT), False, "acquire() of a lock that another holds")


def wait_in(condition: Any, ready: Any, woken: Any) -> None:
    with condition:
        ready.release()
        expect(condition.wait(SOON), True, "wait()")
    woken.release()


def expect_set(event: Any) -> None:
    expect(event.wait(SOON), True, "wait()")


def pass_barrier(barrier: Any, lock: Any, total: Any) -> None:
    for _ in range(5):
        with lock:
            total.value += 1
        barrier.wait(SOON)
        barrier.wait(SOON)


def change(value: Any, array: Any, raw: Any, text: Any) -> None:
    with value.get_lock():
        value.value *= 2
    array[:] = [2 * i for i in array]
    raw[0], raw[len(raw) - 1] = 1, 2
    text.value = b"after"


def square(number: int) -> int:
    return number * number


def divide(one: int, two: int) -> float:
    return one / two


def use_inherited(q: Any, lock: Any, value: Any, end: Any) -> None:
    q.put("from the child")
    end.send(end.recv())
    with lock:
        value.value += 1
        q.put(value.value)


def put_into_full(ctx: Any) -> Callable[[], Any]:
    q = ctx.Queue(1)
    q.put(0)
    return lambda: q.put(1)


def wait_for_notification(ctx: Any) -> Any:
    condition = ctx.Condition()
    condition.acquire()
    return condition.wait


def acquire_held(ctx: Any) -> Any:
    lock = ctx.Lock()
    lock.acquire()
    return lock.acquire


def receive(ctx: Any) -> Callable[[], Any]:
    ends = ctx.Pipe()
    return lambda: ends[0].recv()


def poll_for_ever(ctx: Any) -> Callable[[], Any]:
    ends = ctx.Pipe()
    return lambda: ends[0].poll(None)


def send_what_nobody_takes(ctx: Any) -> Callable[[], Any]:
    ends = ctx.Pipe()
    return lambda: fill(ends[0].send_bytes)


BLOCKING: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "Queue.get": lambda ctx: ctx.Queue().get,
    "Queue.put": put_into_full,
    "SimpleQueue.get": lambda ctx: ctx.SimpleQueue().get,
    "Lock.acquire": acquire_held,
    "Semaphore.acquire": lambda ctx: ctx.Semaphore(0).acquire,
    "Condition.wait": wait_for_notification,
    "Event.wait": lambda ctx: ctx.Event().wait,
    "Barrier.wait": lambda ctx: ctx.Barrier(2).wait,
    "Connection.recv": receive,
    "Connection.poll": poll_for_ever,
    "Connection.send": send_what_nobody_takes,
}


def handle_signals(ctx: Any, name: str, answer: Any) -> None:
    # Where processes are started in the background, SIGINT may be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, lambda *_: answer.send("handled"))
    call = BLOCKING[name](ctx)
    answer.send("waiting")
    try:
        call()
    except KeyboardInterrupt:
        answer.send("interrupted")


def make_everything_and_die(ctx: Any) -> None:
    kept = [
        ctx.Queue(),
        ctx.SimpleQueue(),
        ctx.JoinableQueue(2),
        ctx.Pipe(),
        ctx.Lock(),
        ctx.Semaphore(100_000),
        ctx.Condition(),
        ctx.Event(),
        ctx.Barrier(2),
        ctx.Value("i"),
        ctx.Array("d", 10_000),
    ]
    kept[0].put(1)
    kept[1].put(1)
    os.kill(os.getpid(), signal.SIGKILL)


# -- running them --------------------------------------------------------------------------------


def checks() -> dict[str, Check]:
    """All checks by their names, in order."""
    return {name: check for name, check in globals().items() if name.startswith("check_")}


@dataclass(frozen=True)
class Outcome:
    """How a check went."""

    check: str
    seconds: float
    problem: str  # "" if all is well

    def __str__(self) -> str:
        return f"{'FAILED' if self.problem else 'ok':8}{self.check} ({self.seconds:.1f} s)"


def conform(context: Any, match: str = "*", limit: float = 60.0) -> Iterator[Outcome]:
    """Run the checks on a context; call it in the main thread.

    Parameters
    ----------
    context : context
        As :func:`multiprocessing.get_context` returns it.
    match : str
        Only checks whose names fit this glob.
    limit : float
        Seconds that a check may take. When they are over its processes are ended, and all stacks
        are part of the problem.

    Yields
    ------
    Outcome
        One for each check. No check raises into the caller.
    """
    multiprocessing.set_forkserver_preload([__name__])
    # What starts once and stays, such as the fork server, is not to count as left behind.
    with children(context, (square, 2)):
        pass
    for name, check in checks().items():
        if not fnmatch.fnmatchcase(name, match):
            continue
        start = time.monotonic()
        problem = ""
        try:
            with no_leaks(), watchdog(limit):
                check(context)
        except Exception:
            problem = traceback.format_exc()
        yield Outcome(name, time.monotonic() - start, problem)
