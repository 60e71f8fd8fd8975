"""UDP: what is lost, doubled or out of order on its way arrives exactly once and in order."""

from __future__ import annotations

import os
import random
import signal
import socket
import time

import pytest

import mpipc
import workers
from mpipc.mechanisms import udp

KINDS = ("lose", "double", "delay", "deliver")


class Unreliable:
    """Stands for `transmit`: loses, doubles and delays datagrams, each kind as often as given."""

    def __init__(self, seed: int, weights: tuple[int, int, int, int]) -> None:
        self.random = random.Random(seed)
        self.weights = weights
        self.delayed: list[tuple[socket.socket, bytes]] = []

    def __call__(self, sock: socket.socket, datagram: bytes) -> None:
        what = self.random.choices(KINDS, self.weights)[0]
        if what == "delay":
            self.delayed.append((sock, datagram))
        elif what != "lose":
            sock.send(datagram)
        if what == "double":
            sock.send(datagram)
        if what == "deliver" and self.random.random() < 0.5:
            while self.delayed:
                late, datagram = self.delayed.pop()
                if late.fileno() >= 0:
                    late.send(datagram)


@pytest.fixture
def context():
    return mpipc.get_context("udp", start_method="fork")


def messages(seed, count=40):
    source = random.Random(seed)
    sizes = source.choices((0, 1, 100, 5000, udp.MAX_PACKET - 1, udp.MAX_PACKET, 200_000), k=count)
    return [source.randbytes(size) for size in sizes]


def send_messages(connection, items):
    for item in items:
        connection.send_bytes(item)


def start(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process


@pytest.mark.parametrize("weights", [(1, 1, 1, 3), (4, 0, 0, 1), (0, 1, 3, 1), (1, 0, 0, 0)])
@pytest.mark.parametrize("seed", range(6))
def test_everything_arrives_once_and_in_order(monkeypatch, context, seed, weights):
    monkeypatch.setattr(udp, "transmit", Unreliable(seed, weights))
    items = messages(seed)
    reader, writer = context.Pipe(False)
    with reader:
        process = start(context, send_messages, writer, items)
        writer.close()
        assert [reader.recv_bytes() for _ in items] == items
        with pytest.raises(EOFError):
            reader.recv_bytes()
    process.join()
    assert process.exitcode == 0


def send_tagged(connection, lock, name):
    number = 0
    while True:
        body = bytes([name]) * ((number * 7919) % 40_000)
        with lock:
            connection.send((name, number, body))
        number += 1


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_sender_among_several(monkeypatch, context, seed):
    monkeypatch.setattr(udp, "transmit", Unreliable(seed, (1, 1, 1, 5)))
    reader, writer = context.Pipe(False)
    # Of shm, for one that a killed process held is taken over.
    lock = mpipc.get_context("shm", start_method="fork").Lock()
    senders = [start(context, send_tagged, writer, lock, name) for name in range(3)]
    writer.close()
    following = [0, 0, 0]
    with reader:
        for count in range(600):
            name, number, body = reader.recv()
            assert number == following[name]
            assert body == bytes([name]) * ((number * 7919) % 40_000)
            following[name] += 1
            if count in (100, 300, 500):
                senders[count // 200].kill()
                senders[count // 200].join()
            if count == 500:
                break
        with pytest.raises(EOFError):
            while True:
                name, number, _ = reader.recv()
                assert number == following[name]
                following[name] += 1


def take_slowly(connection, counter):
    while True:
        connection.recv_bytes()
        counter.value += 1


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_receiver_leaves_the_rest_to_the_next(context, seed):
    source = random.Random(seed)
    reader, writer = context.Pipe(False)
    taken = context.RawValue("i", 0)  # A lock would go with a receiver.
    sender = start(context, workers.send_all, writer, range(4000))
    for _ in range(5):
        receiver = start(context, take_slowly, reader, taken)
        enough = taken.value + source.randrange(1, 300)
        while taken.value < enough:
            time.sleep(0.001)
        receiver.kill()
        receiver.join()
    writer.close()
    with reader:
        rest = []
        with pytest.raises(EOFError):
            while True:
                rest.append(reader.recv())
    sender.join()
    assert rest == list(range(rest[0], 4000))
    # A message that was taken and not yet counted goes with each receiver that is killed.
    assert taken.value <= rest[0] <= taken.value + 5


def test_a_sender_that_exits_at_once_is_not_needed(monkeypatch, context):
    monkeypatch.setattr(udp, "transmit", lambda sock, datagram: None)
    reader, writer = context.Pipe(False)
    with reader:
        process = start(context, workers.then_die, workers.send_all, writer, range(100))
        writer.close()
        process.join()
        assert [reader.recv() for _ in range(100)] == list(range(100))
        with pytest.raises(EOFError):
            reader.recv()


def test_strangers_are_not_heard(context):
    reader, writer = context.Pipe(False)
    with reader, writer, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        address = reader._incoming._in.getsockname()
        assert address[0] == "127.0.0.1"
        for number in range(5):
            stranger.sendto(number.to_bytes(8, "little") + b"\3forged", address)
        assert not reader.poll(0.05)
        writer.send("ours")
        assert reader.recv() == "ours"


def test_readable_exactly_while_something_waits():
    packets = udp.Packets()
    waits = _readable
    assert packets.try_recv() is None and not waits(packets.readable_fd())
    for number in range(3):
        assert packets.try_send(bytes([number]))
    for number in range(3):
        assert waits(packets.readable_fd())
        assert packets.try_recv() == bytes([number])
    assert not waits(packets.readable_fd())


def _readable(fd):
    return bool(udp.select.select([fd], [], [], 0)[0])


@pytest.mark.parametrize("size", [1, 1000, udp.MAX_PACKET])
def test_a_full_window_refuses_and_tells_of_room(size):
    packets = udp.Packets()
    sent = 0
    while packets.try_send(sent.to_bytes(2, "little") * (size // 2) or b"x"):
        sent += 1
    assert sent == min(udp.MOST, udp.RING // size) or size > 1000
    assert not _readable(packets.writable_fd()[0])
    for _ in range(sent // 2 + 1):
        assert packets.try_recv() is not None
    assert _readable(packets.writable_fd()[0])
    assert packets.try_send(b"again")


def test_the_lock_is_free_after_a_handler_has_raised(context):
    """KeyboardInterrupt at any instruction of send and recv leaves the direction usable."""
    packets = udp.Packets()
    received = []
    sent = 0

    def handler(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, handler)
    source = random.Random(1)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, source.random() * 0.002 + 1e-5)
                while True:
                    if packets.try_send(sent.to_bytes(4, "little")):
                        sent += 1
                    packet = packets.try_recv()
                    if packet is not None:
                        received.append(int.from_bytes(packet, "little"))
            except KeyboardInterrupt:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    # What was under way may be lost with its sender, or be there though its sender knows nothing.
    assert received == sorted(received)
    child = os.fork()
    if child == 0:
        os._exit(0 if packets.try_send(b"free") else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_limits_name_the_buffer():
    assert udp.limits()["SO_RCVBUF"] > 0
