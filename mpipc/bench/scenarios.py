"""All scenarios: what is measured, and what we want of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from . import idle, pools
from .messages import drain, drain_by_many, noise, noise_array, pipe_trips, queue_trips
from .model import (
    MICROSECONDS,
    MILLION_PER_SECOND,
    MILLISECONDS,
    NANOSECONDS,
    NOT_ABOVE_STOCK,
    PER_SECOND,
    Goal,
    Scenario,
    gib_per_second,
)
from .operations import operation
from .synchronization import Events, Rounds, Semaphores, Turns, contended_lock, signal_trips
from .team import Places, anywhere, one_core, two_cores

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"100 B": 100, "1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": MIB, "16 MiB": 16 * MIB}
PLACES: dict[str, Callable[[], Places]] = {"two cores": two_cores, "one core": one_core}


def queues() -> Iterator[Scenario]:
    """One producer and one consumer; then more of them."""
    goal: float | None
    for title, message, goal, floor in (
        ("int", 7, 35, "37-53x"),
        ("short str", "a short string", 35, "37-53x"),
        ("100 B", noise(100), 35, "37-53x"),
        ("small tuple", (1, "two", 3.0), 12, "13x"),
        ("dict", {"name": "one", "value": 2, "ratio": 3.5}, 8, "8.5x"),
        ("1 KiB", noise(KIB), 25, "16-33x"),
    ):
        size = KIB if title == "1 KiB" else 100
        yield Scenario(
            "Queue", f"Queue, {title}", PER_SECOND, "Queue",
            partial(drain, message=message, size=size), Goal(goal), floor,
        )  # fmt: skip
    for title, goals, floors in (
        ("1 KiB", (None, 12, None), ("", "3.4x", "")),
        ("64 KiB", (5.5, 4.5, 6.5), ("6x", "4.7x", "7x")),
        ("1 MiB", (45, 50, 60), ("58x", "62x", "68x")),
        ("16 MiB", (8, 14, 26), ("9x", "16x", "29x")),
    ):
        size = SIZES[title]
        unit = PER_SECOND if size == KIB else gib_per_second(size)
        array = noise_array(size)
        for what, needs, message, views, goal, floor in (
            (title, "Queue", noise(size), False, goals[0], floors[0]),
            (f"NumPy {title}", "Queue", array, False, goals[1], floors[1]),
            (f"NumPy {title}, views", "Queue.views", array, True, goals[2], floors[2]),
        ):
            if goal is not None:
                yield Scenario(
                    "Queue", f"Queue, {what}", unit, needs,
                    partial(drain, message=message, size=size, views=views), Goal(goal), floor,
                )  # fmt: skip
    for producers, consumers in ((2, 2), (4, 4), (1, 4), (4, 1)):
        needs = "Queue" if consumers == 1 else "Queue.consumers"
        yield Scenario(
            "Queue", f"Queue, small tuple, {producers}x{consumers}", PER_SECOND, needs,
            partial(drain_by_many, producers=producers, consumers=consumers), Goal(10), "10-17x",
        )  # fmt: skip


def round_trips() -> Iterator[Scenario]:
    """There and back between two processes."""
    for title, needs, measure, where, goal, floor in (
        ("Queue pair", "Queue", queue_trips, "two cores", Goal(seconds=4e-6), "2.5 us"),
        ("Queue pair", "Queue", queue_trips, "one core", Goal(seconds=9e-6), "6.3 us"),
        ("Pipe", "Pipe", pipe_trips, "two cores", Goal(seconds=3e-6, p99=10e-6), "0.7-2.5 us"),
        ("Pipe", "Pipe", pipe_trips, "one core", Goal(seconds=8e-6), "6.3 us"),
    ):
        yield Scenario(
            "Round trip", f"{title}, round trip, {where}", MICROSECONDS, needs,
            partial(measure, message=b"8 bytes!", places=PLACES[where]), goal, floor,
        )  # fmt: skip
    for title in ("100 B", "1 KiB", "64 KiB", "1 MiB"):
        yield Scenario(
            "Round trip", f"Pipe, round trip of {title}", MICROSECONDS, "Pipe",
            partial(pipe_trips, message=noise(SIZES[title]), places=anywhere),
        )  # fmt: skip


def locks() -> Iterator[Scenario]:
    """Nobody else wants them."""
    pair = "acquire(); release()"
    for kind in ("Lock", "RLock", "Semaphore"):
        setup = f"it = ctx.{kind}(); acquire, release = it.acquire, it.release"
        yield Scenario(
            "Locks", f"{kind}, acquire and release", NANOSECONDS, kind,
            operation(pair, setup), NOT_ABOVE_STOCK, "1.1x",
        )  # fmt: skip
    for title, kind, statement, goal, floor in (
        ("with Lock", "Lock", "with it: pass", 2.1, "2.4x"),
        ("with Condition", "Condition", "with it: pass", 3.3, "3.8x"),
        ("Event, is_set", "Event", "it.is_set()", 12, "13-16x"),
        ("Event, wait on a set one", "Event", "it.wait()", 12, "17-20x"),
        ("Event, set and clear", "Event", "it.set(); it.clear()", 10, ""),
    ):
        setup = f"it = ctx.{kind}()" + ("; it.set()" if kind == "Event" else "")
        yield Scenario(
            "Locks", title, NANOSECONDS, kind, operation(statement, setup), Goal(goal), floor
        )


def contention() -> Iterator[Scenario]:
    """Two processes want a lock, or wait for each other."""
    for where, goal, floor in (("two cores", 2, "2.1x"), ("one core", 1, "0.8x")):
        yield Scenario(
            "Contention", f"Lock, contended, {where}", MILLION_PER_SECOND, "Lock",
            partial(contended_lock, places=PLACES[where]), Goal(goal), floor,
        )  # fmt: skip
    for title, needs, kind, on_one in (
        ("Condition, there and back", "Condition", Turns, 2),
        ("Event, there and back", "Event", Events, 2),
        ("Semaphore, there and back", "Semaphore", Semaphores, 1),
        ("Barrier of 2, a round", "Barrier", Rounds, 2),
    ):
        for where, goal, floor in (("two cores", 10, "0.2 us"), ("one core", on_one, "4.6 us")):
            yield Scenario(
                "Contention", f"{title}, {where}", MICROSECONDS, needs,
                partial(signal_trips, kind=kind, places=PLACES[where]),
                Goal(goal), "" if kind is Rounds else floor,
            )  # fmt: skip


def values() -> Iterator[Scenario]:
    """Shared values and arrays, by one process."""
    value, array = "v = ctx.Value('q', 0)", "a = ctx.Array('q', 1000)"
    raw_value, raw_array = "v = ctx.RawValue('q', 0)", "a = ctx.RawArray('q', 1000)"
    for title, unit, statement, setup, goal, floor in (
        ("Value, read", NANOSECONDS, "v.value", value, Goal(3), "4.8x"),
        ("Value, write", NANOSECONDS, "v.value = 1", value, Goal(3), "4.8x"),
        ("Value, increment locked", NANOSECONDS, "with v.get_lock(): v.value += 1", value,
         Goal(2.8), "3.5x"),
        ("Array[k]", NANOSECONDS, "a[7]", array, Goal(8), "13x"),
        ("Array[:] of 1000", MICROSECONDS, "a[:]", array, NOT_ABOVE_STOCK, "1.1x"),
        ("RawValue, read", NANOSECONDS, "v.value", raw_value, NOT_ABOVE_STOCK, "1x"),
        ("RawArray[k]", NANOSECONDS, "a[7]", raw_array, NOT_ABOVE_STOCK, "1x"),
    ):  # fmt: skip
        yield Scenario("Values", title, unit, "Value", operation(statement, setup), goal, floor)


def creation() -> Iterator[Scenario]:
    """Making things, and dropping them again."""
    for title, unit, statement, goal, floor in (
        ("make a Lock", MICROSECONDS, "ctx.Lock()", Goal(12), ""),
        ("make a Queue", MICROSECONDS, "ctx.Queue()", Goal(10), ""),
        ("make a Pipe", MICROSECONDS, "ctx.Pipe()", NOT_ABOVE_STOCK, ""),
        ("make a RawArray of 64 B", MICROSECONDS, "ctx.RawArray('b', 64)", Goal(6), ""),
        ("make a RawArray of 1 MiB", MICROSECONDS, "ctx.RawArray('b', 1 << 20)", Goal(10), ""),
        # The goal is for C; here the Python object around the block counts too.
        ("allocate a block of 64 B", NANOSECONDS, "new_block(64)", Goal(seconds=60e-9),
         "malloc: 29 ns"),
    ):  # fmt: skip
        measure = operation(statement, collect=True)
        yield Scenario("Creation", title, unit, "creation", measure, goal, floor)


def workers() -> Iterator[Scenario]:
    """Pools and executors."""
    large = 500  # results of 1 MiB, lest those that wait fill the memory
    for title, unit, needs, measure, goal, most in (
        ("Pool.map, chunksize 1", PER_SECOND, "Pool.map", pools.pool_map, 8, None),
        ("Pool.imap_unordered, chunksize 1", PER_SECOND, "Pool", pools.pool_imap_unordered, 5,
         None),
        ("Pool.apply, round trip", MICROSECONDS, "Pool", pools.pool_apply, 8, None),
        ("Pool, NumPy 1 MiB as result", PER_SECOND, "Pool", pools.pool_large_results, 15, large),
        ("Pool, NumPy 1 MiB as argument", PER_SECOND, "Pool", pools.pool_large_arguments, 12,
         large),
        ("ProcessPoolExecutor.map, chunksize 1", PER_SECOND, "ProcessPoolExecutor",
         pools.executor_map, 10, None),
    ):  # fmt: skip
        yield Scenario("Pool", title, unit, needs, measure, Goal(goal), most=most)


def waiting() -> Iterator[Scenario]:
    """The processor time of a process that waits for a second."""
    for title, measure in (
        ("Queue.get", idle.idle_get),
        ("Connection.recv", idle.idle_recv),
        ("Lock.acquire", idle.idle_acquire),
        ("Event.wait", idle.idle_wait),
    ):
        yield Scenario(
            "Idle", f"Idle, a second in {title}", MILLISECONDS, "idle",
            measure, Goal(seconds=1e-3), count=1, compared=False,
        )  # fmt: skip


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario, by its name."""
    families = (queues, round_trips, locks, contention, values, creation, workers, waiting)
    return {scenario.name: scenario for family in families for scenario in family()}
