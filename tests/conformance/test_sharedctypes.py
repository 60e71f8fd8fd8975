"""Value, Array, RawValue and RawArray."""

from __future__ import annotations

import array
import ctypes
from multiprocessing import sharedctypes

import pytest

import workers
from workers import MIB, SOON, Background, Point

VALUES = [
    ("b", -128), ("B", 255), ("h", -(2**15)), ("H", 2**16 - 1), ("i", -(2**31)), ("I", 2**32 - 1),
    ("l", -(2**63)), ("L", 2**64 - 1), ("q", -(2**63)), ("Q", 2**64 - 1), ("f", 0.5), ("d", 0.1),
    ("c", b"x"), ("u", "\u00e9"), (ctypes.c_bool, True), (ctypes.c_short, -7),
]  # fmt: skip


def code(parameter):
    return getattr(parameter, "__name__", str(parameter))


@pytest.mark.parametrize(("typecode", "value"), VALUES, ids=code)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "locked"])
def test_every_type(ctx, typecode, value, raw):
    make = ctx.RawValue if raw else ctx.Value
    zero = make(typecode)
    assert not zero.value or zero.value in (b"\0", "\0")
    shared = make(typecode, value)
    assert shared.value == value
    zero.value = value
    assert zero.value == value
    many = (ctx.RawArray if raw else ctx.Array)(typecode, [value] * 3)
    assert len(many) == 3
    if typecode == "c" or typecode == "u":
        assert many[:] == value * 3
    else:
        assert many[:] == [value] * 3


def test_are_stock_types(ctx):
    assert isinstance(ctx.Value("i"), sharedctypes.Synchronized)
    assert isinstance(ctx.Array("i", 3), sharedctypes.SynchronizedArray)
    assert isinstance(ctx.Array("c", 3), sharedctypes.SynchronizedString)
    assert isinstance(ctx.Value(Point), sharedctypes.SynchronizedBase)
    assert isinstance(ctx.RawValue("i"), ctypes.c_int)
    assert isinstance(ctx.RawArray("d", 2), ctypes.Array)


def test_shared_with_children(ctx, family):
    shared = [
        ctx.Value("i", 3),
        ctx.RawValue("d", 1.5),
        ctx.Array("l", range(5)),
        ctx.RawArray("h", [1, 2, 3]),
        ctx.Value(Point, 0.5, 7),
        ctx.RawValue(Point, 2.5, 8),
    ]
    family.start(workers.double_all, *shared)
    family.join()
    value, raw, many, raw_many, point, raw_point = shared
    assert (value.value, raw.value) == (6, 3.0)
    assert many[:] == [0, 2, 4, 6, 8] and raw_many[:] == [2, 4, 6]
    assert (point.x, point.y, raw_point.x, raw_point.y) == (1.0, 14, 5.0, 16)
    workers.double_all(*shared)
    assert family.call(workers.elements, many) == [0, 4, 8, 12, 16]


def test_seen_while_the_child_runs(ctx, family):
    value, ready, go = ctx.Value("i", 1), ctx.Event(), ctx.Event()
    seen = Background(family.call, workers.read_when, value, ready, go)
    assert ready.wait(SOON)
    value.value = 42
    go.set()
    assert seen.result() == 42


def test_nothing_is_lost_under_the_lock(ctx, family):
    value, many, times = ctx.Value("q", 0), ctx.Array("i", 4), 1000
    for _ in range(2):
        family.start(workers.add, value, times)
        family.start(workers.add_each, many, times // 10)
    workers.together(*[lambda: workers.add(value, times)] * 2)
    family.join()
    assert value.value == 4 * times
    assert many[:] == [2 * times // 10] * 4


@pytest.mark.parametrize("make", ["Value", "Array"])
def test_locks(ctx, make):
    args = ("i", 5)
    make = getattr(ctx, make)
    for kwargs in ({}, {"lock": True}, {"lock": None}):
        shared = make(*args, **kwargs)
        lock = shared.get_lock()
        # The default is recursive.
        with lock, lock, shared:
            assert Background(shared.acquire, False).result() is False
        assert shared.acquire() is True
        shared.release()
        assert isinstance(shared.get_obj(), (ctypes.c_int, ctypes.Array))
    own = ctx.Lock()
    shared = make(*args, lock=own)
    assert shared.get_lock() is own
    with shared:
        assert own.acquire(False) is False
    bare = make(*args, lock=False)
    assert not hasattr(bare, "get_lock") and not hasattr(bare, "get_obj")
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        make(*args, lock="navalue")


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "locked"])
def test_array_interface(ctx, raw):
    make = ctx.RawArray if raw else ctx.Array
    expected = [680, 626, 934, 821, 150, 233, 548, 982, 714, 831]
    many = make("i", expected)
    assert len(many) == len(expected) and list(many) == expected
    assert many[2:7] == expected[2:7] and many[-1] == expected[-1] and many[::3] == expected[::3]
    expected[4:8] = many[4:8] = array.array("i", [1, 2, 3, 4])
    assert list(many) == expected
    many[0] = -5
    assert many[0] == -5
    for bad in (10, -11):
        with pytest.raises(IndexError):
            many[bad]
    with pytest.raises(TypeError):
        many[0] = "text"
    with pytest.raises(ValueError):
        many[0:2] = [1, 2, 3]
    many[:] = expected
    assert many[:] == expected
    assert make("i", [])[:] == []


def test_zeroed_when_memory_is_reused(ctx):
    for _ in range(20):
        many = ctx.RawArray("B", 100_000)
        assert not any(many)
        ctypes.memset(many, 0xFF, len(many))
        value = ctx.RawValue("Q")
        assert value.value == 0
        value.value = 2**64 - 1
        del many, value


def test_strings(ctx, family):
    text = ctx.Array("c", 20)
    assert (text.value, text.raw) == (b"", bytes(20))
    text.value = b"hello"
    assert (text.value, text.raw, text[0]) == (b"hello", b"hello" + bytes(15), b"h")
    family.start(workers.store, text, "value", b"from the child")
    family.join()
    assert text.value == b"from the child"
    assert ctx.Array("c", b"given").value == b"given"


def test_structures(ctx, family):
    point = ctx.Value(Point, 1.5, 2)
    family.start(workers.store, point, "y", 9)
    points = ctx.Array(Point, [(1, 2), (3, 4)])
    family.join()
    assert (point.x, point.y) == (1.5, 9)
    assert [(p.x, p.y) for p in points] == [(1.0, 2), (3.0, 4)]
    points[0].x = 8
    assert points.get_obj()[0].x == 8


def test_numpy_sees_the_memory(ctx, family):
    numpy = pytest.importorskip("numpy", reason="arrays are optional")
    many = ctx.Array("d", 1000)
    view = numpy.frombuffer(many.get_obj())
    view += 1
    family.start(workers.store, many, 3, 5.0)
    family.join()
    assert view[3] == 5.0 and view.sum() == 1004.0
    raw = ctx.RawArray("i", 10)
    view = numpy.frombuffer(raw, dtype="i4")
    view[:] = range(10)
    assert raw[:] == list(range(10))


def test_a_view_keeps_the_memory(ctx):
    view = memoryview(ctx.RawArray("B", 5000))
    others = [ctx.RawArray("B", 5000) for _ in range(50)]
    for other in others:
        ctypes.memset(other, 0xFF, len(other))
    assert not any(view.cast("B"))


def test_large_arrays(ctx, family):
    many = ctx.RawArray("B", 32 * MIB)
    family.start(workers.store, many, 32 * MIB - 1, 77)
    family.join()
    assert many[32 * MIB - 1] == 77 and many[0] == 0


def test_many_values(ctx, family):
    values = [ctx.Value("i", number) for number in range(300)]
    assert family.call(workers.total, values[::10]) == sum(range(0, 300, 10))
    assert [value.value for value in values] == list(range(300))


def test_copy_and_synchronized(ctx):
    first = ctx.RawValue(Point, 1.5, 2)
    second = sharedctypes.copy(first)
    first.x = 0
    assert (second.x, second.y) == (1.5, 2)
    assert sharedctypes.synchronized(second, ctx.RLock()).x == 1.5


def test_repr(ctx):
    value = ctx.Value("i", 5)
    assert repr(value) == f"<Synchronized wrapper for {value.get_obj()!r}>"
