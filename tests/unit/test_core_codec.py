"""Pickling: ForkingPickler's meaning, kept picklers, messages read in place."""

from __future__ import annotations

import gc
import weakref

import pytest

import mpipc


@pytest.fixture
def queue():
    return mpipc.get_context("shm", start_method="fork").SimpleQueue()


class Marker:
    """Pickled by state; can be referred to weakly."""

    def __init__(self) -> None:
        self.text = "m"


class Refuses:
    def __reduce__(self):
        raise LookupError("will not be pickled")


def explode():
    raise LookupError("will not be unpickled")


class Explodes:
    def __reduce__(self):
        return explode, ()


def test_no_memo_is_carried_from_one_message_to_the_next(queue):
    marker = Marker()
    for _ in range(3):
        queue.put([marker, marker])
    for _ in range(3):
        first, second = queue.get()
        assert first is second and first is not marker and first.text == "m"


def test_nothing_is_kept_alive_after_a_put(queue):
    marker = Marker()
    gone = weakref.ref(marker)
    queue.put([marker])
    del marker
    gc.collect()
    assert gone() is None
    queue.get()


def test_an_error_in_pickling_leaves_the_next_message_whole(queue):
    for _ in range(3):
        with pytest.raises(LookupError, match="will not be pickled"):
            queue.put([b"x" * 100_000, Refuses()])
        queue.put([b"y" * 100_000, 1])
        assert queue.get() == [b"y" * 100_000, 1]


@pytest.mark.parametrize("padding", [0, 100_000])
def test_an_error_in_unpickling_consumes_the_message_and_frees_its_memory(queue, padding):
    for _ in range(3):
        queue.put([b"x" * padding, Explodes()])
        with pytest.raises(LookupError, match="will not be unpickled"):
            queue.get()
    queue.put("next")
    assert queue.get() == "next"
    gc.collect()
    assert {holder for _, _, holder in queue.segment.inspect()["extents"]} <= {"free", "linked"}


def test_large_buffers_keep_their_place_among_small_ones(queue):
    message = [bytes([i]) * (i * 30_000) for i in range(8)] + ["text" * 50_000, bytearray(200_000)]
    queue.put(message)
    taken = queue.get()
    assert taken == message
    assert type(taken[-1]) is bytearray


def test_arrays_arrive_writable_and_own_nothing_shared(queue):
    numpy = pytest.importorskip("numpy", reason="arrays are optional")
    array = numpy.arange(100_000.0)
    array.flags.writeable = False
    for sent in (array, array.copy(), numpy.asfortranarray(array.reshape(100, -1))):
        queue.put(sent)
        taken = queue.get()
        assert (taken == sent).all() and taken.flags.writeable
        taken[:] = 0
    assert queue.segment.inspect()["extents"][-1][2] == "free"
