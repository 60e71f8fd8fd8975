"""The leak kit itself: what is left behind is reported, what is kept by design is not."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

import workers
from mpipc.testing import LeakError, no_leaks, settle, snapshot


@contextlib.contextmanager
def descriptor():
    reader, writer = os.pipe()
    yield "descriptors: 2 more of pipe:"  # Both ends have one number.
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def memfd(name="some-memory"):
    fd = os.memfd_create(name)
    os.truncate(fd, 4096)
    yield f"descriptors: 1 more of /memfd:{name} (deleted)"
    os.close(fd)


@contextlib.contextmanager
def mapping(name="some-memory"):
    fd = os.memfd_create(name)
    os.truncate(fd, 4096)
    memory = mmap.mmap(fd, 4096)
    os.close(fd)
    yield f"mappings: 1 more of /memfd:{name} (deleted)"
    memory.close()


@contextlib.contextmanager
def shared_memory():
    name = f"mpipc-leak-test-{os.getpid()}"
    with open(f"/dev/shm/{name}", "w"):
        yield f"shared_memory: {name}"
    os.unlink(f"/dev/shm/{name}")


@contextlib.contextmanager
def system_v():
    libc = ctypes.CDLL(None, use_errno=True)
    ident = libc.shmget(0, 4096, 0o600)
    if ident == -1:
        pytest.skip(f"no System V shared memory here: {os.strerror(ctypes.get_errno())}")
    yield f"system_v: shm id {ident} "
    libc.shmctl(ident, 0, None)


@contextlib.contextmanager
def child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield f"processes: pid {process.pid} of {os.getpid()}"
        process.communicate()


@contextlib.contextmanager
def zombie():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield f"processes: pid {pid} (zombie) of {os.getpid()}"
    os.waitpid(pid, 0)


@contextlib.contextmanager
def thread():
    stop = threading.Event()
    running = threading.Thread(target=stop.wait, name="left-running")
    running.start()
    yield f"threads: left-running ({running.ident})"
    stop.set()
    running.join()


@pytest.mark.parametrize(
    "leak", [descriptor, memfd, mapping, shared_memory, system_v, child, zombie, thread]
)
def test_is_reported_until_it_is_gone(leak):
    before = snapshot()
    with leak() as expected:
        left = settle(before, timeout=0.05)
        assert any(line.startswith(expected) for line in left), left
    assert settle(before) == []


def test_no_leaks_raises():
    with (
        contextlib.ExitStack() as later,
        pytest.raises(LeakError, match="more of pipe:"),
        no_leaks(0.05),
    ):
        later.enter_context(descriptor())


def test_waits_for_what_ends_by_itself():
    timer = threading.Timer(0.2, lambda: None)
    with no_leaks():
        timer.start()


def test_collects_garbage_first():
    with no_leaks():
        cycle = list(multiprocessing.Pipe())
        cycle.append(cycle)
        del cycle


def test_an_error_of_the_block_goes_first():
    with contextlib.ExitStack() as later, pytest.raises(KeyError), no_leaks(0.05):
        later.enter_context(memfd())
        raise KeyError


def test_one_current_arena_may_stay_and_no_second():
    before = snapshot()
    there = before.descriptors["/memfd:mpipc-arena (deleted)"]
    with mapping("mpipc-arena"):
        # The only one, or the second beside the one that earlier tests left.
        assert bool(settle(before, 0.05)) == bool(there)
        with mapping("mpipc-arena"):
            assert len(settle(before, 0.05)) == 2
    assert settle(before) == []


def test_the_services_of_multiprocessing_may_stay():
    with no_leaks():
        ctx = multiprocessing.get_context("forkserver")
        a, b = ctx.Pipe()
        c, d = ctx.Pipe()
        # Starts the fork server, the resource tracker and the resource sharer.
        process = ctx.Process(target=workers.send_through, args=(b, "through"))
        process.start()
        a.send(d)
        assert c.recv() == "through"
        process.join()
        process.close()
        for connection in (a, b, c, d):
            connection.close()
