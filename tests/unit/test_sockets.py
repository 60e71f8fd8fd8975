"""Datagram sockets and TCP: what is particular to them."""

from __future__ import annotations

import errno
import multiprocessing
import socket
import threading

import pytest

import mpipc
from mpipc.mechanisms import dgram, tcp


def context(name):
    return mpipc.get_context(name, start_method="fork")


def test_more_datagrams_wait_than_the_kernel_lets_strangers_send():
    reader, writer = context("dgram").Pipe(False)
    with reader, writer:
        for number in range(100):
            writer.send(number)
        assert [reader.recv() for _ in range(100)] == list(range(100))


def test_a_datagram_to_nobody_is_a_broken_pipe():
    one, two = map(dgram.Packets, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    del two
    with pytest.raises(BrokenPipeError) as caught:
        one.try_send(b"x")
    assert caught.value.errno == errno.EPIPE


@pytest.fixture
def intruders(monkeypatch):
    """Connections of others that are in the listener's queue before our own."""
    found = []
    listen = socket.socket.listen

    def listen_to_others_first(self, *args):
        listen(self, *args)
        for _ in range(5):
            other = socket.create_connection(self.getsockname())
            other.sendall(b"x" * 100)
            found.append(other)

    monkeypatch.setattr(socket.socket, "listen", listen_to_others_first)
    yield found
    for other in found:
        other.close()


def test_who_connects_first_gets_nothing(intruders):
    reader, writer = context("tcp").Pipe()
    with reader, writer:
        writer.send(1)
        assert reader.recv() == 1
        assert len(intruders) == 5
        for other in intruders:
            other.settimeout(5)
            with pytest.raises(ConnectionResetError):
                assert other.recv(1) == b"x"  # closed with bytes unread


def test_a_full_queue_of_strangers_only_delays(monkeypatch):
    strangers = []
    listen = socket.socket.listen

    def short_queue(self, *_):
        listen(self, 1)
        for _ in range(2):
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.connect_ex(self.getsockname())
            strangers.append(stranger)

    monkeypatch.setattr(socket.socket, "listen", short_queue)
    reader, writer = context("tcp").Pipe()
    with reader, writer:
        writer.send(1)
        assert reader.recv() == 1
    for stranger in strangers:
        stranger.close()


def test_another_key_is_refused(monkeypatch):
    one, two = tcp.pair()
    with one, two:
        digest = tcp.hmac.digest
        monkeypatch.setattr(tcp.hmac, "digest", lambda key, *rest: digest(next(keys), *rest))
        keys = iter([b"theirs", b"ours"])
        with pytest.raises(multiprocessing.AuthenticationError):
            tcp._prove(one, two)


def test_nobody_listens_afterwards():
    addresses = []
    bind = socket.socket.getsockname
    reader, writer = context("tcp").Pipe()
    with reader, writer:
        for end in (reader, writer):
            with socket.fromfd(end.fileno(), socket.AF_INET, socket.SOCK_STREAM) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                addresses.append(bind(sock))
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address).close()


@pytest.mark.parametrize("duplex", [True, False])
def test_tcp_tells_of_a_closed_reader_at_once(duplex):
    reader, writer = context("tcp").Pipe(duplex)
    with reader, writer:
        writer.send("unread")
        reader.close()
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                writer.send(1)


def test_a_blocked_tcp_writer_gets_a_broken_pipe():
    reader, writer = context("tcp").Pipe(False)
    with writer:
        timer = threading.Timer(0.2, reader.close)
        timer.start()
        with pytest.raises(BrokenPipeError):
            writer.send_bytes(bytes(1 << 26))
        timer.join()


@pytest.mark.parametrize("name", ["dgram", "tcp"])
def test_limits_are_numbers(name):
    assert {"dgram": dgram, "tcp": tcp}[name].limits()
