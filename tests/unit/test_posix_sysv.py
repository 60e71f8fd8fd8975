"""What is particular to the two kinds of System IPC: limits, keys, undone locks, bells."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest

import mpipc
from mpipc import OwnerDiedWarning
from mpipc.adapters.bells import BelledPackets
from mpipc.adapters.leases import Lease, key_of
from mpipc.mechanisms import posix, sysv
from workers import SOON, Family

A_WHILE = 0.2


@pytest.fixture(params=["posix", "sysv"])
def ctx(request):
    return mpipc.get_context(request.param, start_method="fork")


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


@pytest.mark.parametrize("mechanism", [posix, sysv])
def test_limits_tell_what_the_kernel_allows(mechanism):
    for figures in mechanism.limits().values():
        assert all(figure > 0 for figure in (figures if isinstance(figures, tuple) else (figures,)))


@pytest.mark.parametrize("tokens", [posix.tokens, sysv.tokens])
def test_no_more_units_than_the_kernel_counts(tokens):
    units = tokens(tokens.capacity)
    assert not units.try_release() and units.value() == tokens.capacity
    assert units.acquire(0) and units.try_release()


@pytest.mark.parametrize("tokens", [posix.tokens, sysv.tokens])
def test_what_a_handler_raises_ends_the_wait(tokens):
    def handler(*_):
        raise ZeroDivisionError

    previous = signal.signal(signal.SIGUSR1, handler)
    pid = os.fork()
    if not pid:
        time.sleep(A_WHILE)
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    try:
        with pytest.raises(ZeroDivisionError):
            tokens(0).acquire(SOON)
    finally:
        os.waitpid(pid, 0)
        signal.signal(signal.SIGUSR1, previous)


def test_queues_become_smaller_as_the_limit_comes_near(monkeypatch):
    tried = []

    def refuse(name, flags, mode, max_messages, max_message_size):
        tried.append((max_messages, max_message_size))
        raise OSError("full")

    monkeypatch.setattr(posix.posix_ipc, "MessageQueue", refuse)
    with pytest.raises(OSError, match=r"RLIMIT_MSGQUEUE.*queues_max.*close some"):
        posix.Queue()
    assert len(tried) == 3 and tried == sorted(tried, reverse=True)


def test_more_queues_than_fit_at_their_best_size():
    queues = [posix.Queue() for _ in range(200)]
    for queue in queues:
        assert queue.try_send(bytes(queue.max_packet))
        assert len(queue.try_recv()) == queue.max_packet


def test_a_key_that_is_taken_stays_with_its_owner(monkeypatch):
    owner = sysv.Semaphore(7)
    names = iter([owner._lease.name.removeprefix("mpipc-"), "1" * 24])
    taken = []

    class Drawn:
        """In the place of os.urandom: first the digits of the other's key."""

        def __init__(self, size):
            self.size = size

        def hex(self):
            if not taken:
                taken.append(1)
                return "0" * 16 + next(names)[-8:]
            return os.urandom(self.size).hex()

    class FakeOs:
        urandom = Drawn

        def __getattr__(self, name):
            return getattr(os, name)

    made = Lease(sysv.remove_semaphore)  # so that the directory is there
    monkeypatch.setattr("mpipc.adapters.leases.os", FakeOs())
    other = sysv.Semaphore(1)
    assert taken and key_of(other._lease.name) != key_of(owner._lease.name)
    assert owner.value() == 7 and other.value() == 1
    made.release()


def die_holding(lock, ready):
    lock.acquire()
    ready.send(None)
    time.sleep(100)


@pytest.mark.parametrize("kind", ["_rlock", "_wlock"])
def test_a_killed_process_gives_the_locks_of_a_queue_back(ctx, kind):
    queue = ctx.Queue()
    reader, writer = ctx.Pipe(duplex=False)
    with Family(ctx) as family:
        process = family.start(die_holding, getattr(queue, kind), writer, exitcode=-signal.SIGKILL)
        reader.recv()
        queue.put(1)
        process.kill()
        assert queue.get(timeout=SOON) == 1
    queue.close()
    queue.join_thread()


def test_a_killed_process_leaves_its_lock_to_the_next(ctx):
    lock = ctx.Lock()
    reader, writer = ctx.Pipe(duplex=False)
    with Family(ctx) as family:
        process = family.start(die_holding, lock, writer, exitcode=-signal.SIGKILL)
        reader.recv()
        process.kill()
    with pytest.warns(OwnerDiedWarning, match="died holding"):
        assert lock.acquire(timeout=SOON)
    assert not lock.acquire(False)
    # As in stock, anybody may release it.
    lock.release()
    assert lock.acquire(False)


def test_views_outlive_the_arena():
    view = sysv.Arena(4096).buffer
    view = memoryview(view)[:8]
    view[0] = 7
    assert bytes(view) == b"\7" + bytes(7)


def test_a_bell_rings_while_packets_wait():
    packets = BelledPackets(sysv.Transport())
    assert packets.try_recv() is None and not readable(packets.readable_fd())
    for number in range(3):
        assert packets.try_send(b"%d" % number)
    for number in range(3):
        assert readable(packets.readable_fd())
        assert packets.try_recv() == b"%d" % number
    assert not readable(packets.readable_fd()) and packets.try_recv() is None


def test_a_bell_rings_when_there_is_room():
    packets = BelledPackets(sysv.Transport())
    full = 0
    while packets.try_send(bytes(packets.max_packet)):
        full += 1
    room, event = packets.writable_fd()
    assert event == select.POLLIN and full > 1 and not readable(room)
    assert packets.try_recv() and readable(room)
    assert packets.try_send(bytes(packets.max_packet))
    assert not packets.try_send(bytes(packets.max_packet)) and not readable(room)


@pytest.mark.parametrize("at", ["sending", "taking"])
def test_a_process_killed_beside_the_bells_strands_nobody(at):
    packets = BelledPackets(sysv.Transport())
    if at == "taking":
        packets.try_send(b"first")
    transport = packets._transport

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if not pid:
        if at == "sending":
            real = transport.try_send
            transport.try_send = lambda packet: real(packet) and die()
            packets.try_send(b"first")
        transport.try_recv = die
        packets.try_recv()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    # The packet without a bell comes with the next one, and both in order.
    assert packets.try_send(b"second")
    for expected in (b"first", b"second"):
        assert readable(packets.readable_fd())
        assert packets.try_recv() == expected
    assert not readable(packets.readable_fd())
