"""Messages without a pickle: what arrives is what stock's pickle brings, or the pickler is used."""

from __future__ import annotations

import copyreg
import math
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from queue import Empty

import pytest
from core_memory import FIRST_RECORD, HEAD, RECORD_BYTES, words

import mpipc
from mpipc.errors import SegmentCorrupt

CTX = mpipc.get_context("shm", start_method="fork")


class Number(int):
    pass


class Text(str):
    pass


class Pair(tuple):
    __slots__ = ()


VALUES = [
    *(0, 1, -1, 255, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 1 << 5000),
    *(0.0, -0.0, 1.5, math.inf, -math.inf, sys.float_info.min, 5e-324),
    *(None, True, False, "", "a", "\xe9", "abc", "\xff" * 9, "\u20ac", "\U0001f600", "\ud800x"),
    *("\udc00\ud800", "a\0b", "x" * 1019, "x" * 1020, "\u20ac" * 509, "\u20ac" * 510),
    *("\U0001f600" * 254, "\U0001f600" * 255, "x" * 100_000),
    *(b"", b"a", b"\0\xff", b"x" * 1024, b"x" * 4096, b"x" * 4097, b"x" * 100_000),
    *((), (1,), (1, "two", 3.0, b"four", None, True), ((), ((1,),)), [[]], [[], {}], {}, []),
    *({"a": 1, 2: "b", None: (1, 2), b"c": [3], (1, 2): {}}, [1, 2.5, "x"], [None] * 500),
    *((0,) * 110, (0,) * 114, tuple(str(i) for i in range(31)), tuple(map(str, range(100, 133)))),
    *(((((((((1,),),),),),),),), [[[[[[[[[[[]]]]]]]]]]], {"k": {"k": {"k": [1]}}}),
    *({1, 2}, frozenset("ab"), bytearray(b"x"), 1j, range(3), int, len, Ellipsis),
    *(Number(3), Text("t"), Pair((1, 2)), (Number(3),), {"a": Text("t")}, [bytearray(b"y")]),
]


def same(left, right):
    """Equal, and of the same types throughout, in the same order."""
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return same(list(left.items()), list(right.items()))
    if type(left) in (tuple, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and repr(left) == repr(right)


@pytest.mark.parametrize("way", ["Queue", "SimpleQueue", "Pipe"])
def test_what_arrives_is_what_was_sent(way):
    if way == "Pipe":
        reader, writer = CTX.Pipe(duplex=False)
        put, get = writer.send, reader.recv
    else:
        queue = getattr(CTX, way)()
        put, get = queue.put, queue.get
    for value in VALUES:
        put(value)
        assert same(get(), value), value


def test_not_a_number_arrives():
    queue = CTX.SimpleQueue()
    queue.put((math.nan,))
    assert math.isnan(queue.get()[0])


def test_what_occurs_twice_arrives_as_one():
    queue = CTX.SimpleQueue()
    text, content, pair, items, table = "text" * 2, b"bytes" * 2, (1, 2), [1], {1: 2}
    for one in (text, content, pair, items, table):
        for sent in ((one, one), [one, one], {1: one, 2: (one,)}):
            queue.put(sent)
            first, second = queue.get().values() if type(sent) is dict else queue.get()[:2]
            assert first is (second[0] if type(sent) is dict else second)


def test_containers_that_hold_themselves():
    queue = CTX.SimpleQueue()
    items: list[object] = []
    items.append((items,))
    queue.put(items)
    taken = queue.get()
    assert taken[0][0] is taken


def test_an_object_sent_is_a_pickle_to_whoever_reads_bytes():
    reader, writer = CTX.Pipe(duplex=False)
    room = bytearray(2_000_000)
    for value in VALUES:
        writer.send(value)
        assert same(pickle.loads(reader.recv_bytes()), value)
        writer.send(value)
        assert same(pickle.loads(room[: reader.recv_bytes_into(room)]), value)
        writer.send(value)
        assert same(pickle.loads(reader._recv_bytes().getvalue()), value)
        writer.send_bytes(pickle.dumps(value))
        assert same(reader.recv(), value)


def test_bytes_of_a_message_may_be_too_many():
    a, b = CTX.Pipe()
    a.send(7)
    with pytest.raises(CTX.BufferTooShort) as caught:
        b.recv_bytes_into(bytearray(2))
    assert pickle.loads(caught.value.args[0]) == 7
    a.send("x" * 100)
    with pytest.raises(OSError, match="bad message length"):
        b.recv_bytes(10)


def test_queues_ends_speak_pickle_too():
    queue = CTX.Queue()
    queue.put((1, "two"))
    assert pickle.loads(queue._reader.recv_bytes()) == (1, "two")
    queue._writer.send_bytes(pickle.dumps("three"))
    assert queue.get() == "three"
    with pytest.raises(Empty):
        queue.get_nowait()


def test_reducers_for_builtins_are_asked_as_seldom_as_by_stock():
    """The C pickler asks none for exact ints, strings, tuples and so on."""
    queue = CTX.SimpleQueue()
    values = [1, 1.5, "s", b"b", (1,), [1], {1: 2}, True, None]
    for table in (ForkingPickler._extra_reducers, copyreg.dispatch_table):
        before = dict(table)
        for value in values:
            table[type(value)] = lambda value: (str, ("reduced",))
        try:
            for value in values:
                queue.put(value)
                assert same(pickle.loads(ForkingPickler.dumps(value)), queue.get())
        finally:
            table.clear()
            table.update(before)


def forge(queue, form, message):
    """Let a message of that form wait in an empty queue."""
    queue._writer.send_bytes(message)
    with words(queue.segment) as memory:
        at = memory.get64(HEAD) >> 28 << 4
        memory.set32(at + 8, memory.get32(at + 8) | form << 16)


def content_of(value):
    """What the message of `value` looks like."""
    queue = CTX.SimpleQueue()
    queue.put(value)
    with words(queue.segment) as memory:
        size = memory.get64(FIRST_RECORD)
        return memory.content(FIRST_RECORD + RECORD_BYTES, size)


BYTES, VALUE, ARRAY = 1, 2, 3
TEXT = "NTFidb124([{"


def damaged_values():
    content = content_of({"key": (1, 2.5, "\u20ac", b"bytes", [None, True])})
    for cut in range(len(content)):
        yield content[:cut]
    for i in range(len(content)):
        for byte in (0, 1, 127, 255, *TEXT.encode()):
            yield content[:i] + bytes([byte]) + content[i + 1 :]
    yield content + b"N"
    yield b"(\1\0\0\0" * 800 + b"N"
    for tag in TEXT:
        yield tag.encode() + b"\xff\xff\xff\xff" + b"N" * 50


def test_damaged_values_raise():
    queue, raised = CTX.SimpleQueue(), 0
    for content in damaged_values():
        forge(queue, VALUE, content)
        try:
            queue.get()
        except (SegmentCorrupt, TypeError, SystemError, ValueError):
            raised += 1
        queue.put("next")
        assert queue.get() == "next"
    assert raised > 100


def test_an_unknown_form_raises():
    queue = CTX.SimpleQueue()
    for size in (10, 10_000):
        forge(queue, 99, b"x" * size)
        with pytest.raises(SegmentCorrupt):
            queue.get()
        queue.put("next")
        assert queue.get() == "next"


class TestArrays:
    @pytest.fixture(autouse=True)
    def numpy(self):
        return pytest.importorskip("numpy", reason="arrays are optional")

    def arrays(self, numpy):
        for code in "?bBhHiIlLqQefdgFDGmMSUO":
            dtype = numpy.dtype({"S": "S5", "U": "U3", "m": "m8[s]", "M": "M8[s]"}.get(code, code))
            for shape in ((), (0,), (1,), (128,), (3, 5), (2, 0, 3), (1, 4, 1), (2,) * 7, (1,) * 9):
                yield numpy.ones(shape).astype(dtype)
        grid = numpy.arange(60.0).reshape(3, 4, 5)
        yield from (grid.T, numpy.asfortranarray(grid), grid[:, ::2], grid[::-1], grid[:, :1])
        yield from (grid.astype(">f8"), grid.astype([("a", "f8")]), grid[1:2], grid.view())
        yield numpy.broadcast_to(numpy.float64(3), (4, 4))
        yield numpy.zeros(3, numpy.dtype("f8", metadata={"unit": "m"}))
        yield numpy.frombuffer(b"12345678", "u2")
        yield numpy.float64(2.5)
        yield numpy.arange(100_000.0).reshape(100, -1)
        yield numpy.asfortranarray(numpy.arange(100_000.0).reshape(100, -1))
        yield numpy.ma.masked_array([1.0, 2.0], [True, False])

    def test_they_arrive_as_with_stock(self, numpy):
        queue = CTX.SimpleQueue()
        for array in self.arrays(numpy):
            queue.put(array)
            taken = queue.get()
            stock = pickle.loads(ForkingPickler.dumps(array))
            assert type(taken) is type(stock)
            assert taken.dtype == stock.dtype and taken.dtype.metadata == stock.dtype.metadata
            assert taken.dtype.char == stock.dtype.char
            assert taken.shape == stock.shape and repr(taken) == repr(stock)
            if isinstance(stock, numpy.ndarray):
                for flag in ("writeable", "c_contiguous", "f_contiguous", "aligned"):
                    assert getattr(taken.flags, flag) == getattr(stock.flags, flag), flag

    def test_inside_of_others_they_arrive_as_with_stock(self, numpy):
        program = """if True:
            import mpipc, numpy
            queue = mpipc.get_context("shm", start_method="fork").SimpleQueue()
            array = numpy.arange(3)
            array.flags.writeable = False
            queue.put([array])
            assert queue.get()[0].flags.writeable
            """
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    def test_as_bytes_they_are_pickles(self, numpy):
        reader, writer = CTX.Pipe(duplex=False)
        for size in (10, 100_000):
            writer.send(numpy.arange(size))
            assert (pickle.loads(reader.recv_bytes()) == numpy.arange(size)).all()
            writer.send_bytes(pickle.dumps(numpy.arange(size)))
            assert (reader.recv() == numpy.arange(size)).all()

    def test_their_reducers_are_asked(self, numpy):
        queue = CTX.SimpleQueue()
        for table in (ForkingPickler._extra_reducers, copyreg.dispatch_table):
            table[numpy.ndarray] = lambda array: (str, ("reduced",))
            try:
                queue.put(numpy.arange(3))
                assert queue.get() == "reduced"
            finally:
                del table[numpy.ndarray]

    def test_damaged_headers_raise(self, numpy):
        content = content_of(numpy.arange(6.0).reshape(2, 3))
        queue, raised = CTX.SimpleQueue(), 0
        for i in range(64):
            for byte in (0, 1, 64, 128, 255):
                for damaged in (content[:i], content[:i] + bytes([byte]) + content[i + 1 :]):
                    forge(queue, ARRAY, damaged)
                    try:
                        queue.get()
                    except (SegmentCorrupt, ValueError):
                        raised += 1
                    queue.put("next")
                    assert queue.get() == "next"
        assert raised > 300
