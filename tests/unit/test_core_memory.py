"""Blocks and arenas: what small objects live in."""

from __future__ import annotations

import ctypes
import os
import pickle
from itertools import pairwise

import pytest

import mpipc
from mpipc._core import new_block


def address(block) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


@pytest.mark.parametrize("size", [1, 8, 64, 65, 4096, 65_535, 65_536, 5 << 20])
def test_a_block_is_zeroed_and_of_its_size(size):
    for _ in range(3):
        block = new_block(size)
        with memoryview(block) as view:
            assert view.nbytes == size and not view.readonly
            assert bytes(view) == bytes(size)
            view[:] = b"\xff" * size
        assert address(block) % 64 == 0


def test_blocks_do_not_overlap():
    blocks = [new_block(size) for size in (1, 64, 100, 4000) * 200]
    spans = sorted((address(block), block.size) for block in blocks)
    assert all(a + size <= b for (a, size), (b, _) in pairwise(spans))


def test_a_block_that_nobody_else_saw_is_used_again():
    block = new_block(200)
    at = address(block)
    del block
    assert address(new_block(200)) == at


def test_memory_of_a_large_block_is_used_again_zeroed():
    block = new_block(1 << 20)
    at = address(block)
    with memoryview(block) as view:
        view[:] = b"x" * len(view)
    del block, view
    block = new_block(600_000)
    assert address(block) == at and bytes(memoryview(block)) == bytes(600_000)
    other = new_block(1 << 20)
    assert address(other) != at
    del block
    pid = os.fork()
    if not pid:
        os._exit(address(new_block(1 << 20)) == at)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("size", [200, 1 << 20])
def test_a_block_that_a_child_may_see_is_not_used_again(size):
    block = new_block(size)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)  # until the parent has written to others
        os._exit(any(memoryview(block)))
    os.close(read)
    del block
    kept = [new_block(size) for _ in range(50)]
    for other in kept:
        memoryview(other)[:] = b"x" * size
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_child_takes_memory_of_its_own():
    mine = new_block(64)
    before = bytes(memoryview(mine))
    pid = os.fork()
    if not pid:
        for _ in range(1000):
            memoryview(new_block(64))[:] = b"\xaa" * 64
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert bytes(memoryview(mine)) == before
    assert not any(memoryview(new_block(64)))


def test_a_block_outside_spawning_is_not_picklable():
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(new_block(8))


def test_the_cap_names_itself():
    with pytest.raises(MemoryError, match="max_bytes=1000"):
        new_block(1001, 1000)
    assert new_block(1000, 1000).size == 1000


@pytest.mark.parametrize("size", [-1, -(1 << 40)])
def test_a_negative_size(size):
    with pytest.raises(ValueError, match="must not be negative"):
        new_block(size)


def test_ten_thousand_objects_take_a_few_descriptors():
    context = mpipc.get_context("shm")
    before = len(os.listdir("/proc/self/fd"))
    locks = [context.Lock() for _ in range(10_000)]
    assert len(os.listdir("/proc/self/fd")) - before <= 3
    assert all(lock.acquire(False) for lock in locks)
