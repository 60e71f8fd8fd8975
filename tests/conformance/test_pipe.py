"""Pipe: the whole of Connection's interface, and what its ends learn of each other's end."""

from __future__ import annotations

import array
import multiprocessing
import multiprocessing.connection
import os
import pickle
import socket
import time
from multiprocessing import reduction

import pytest

import workers
from workers import A_WHILE, KIB, MIB, SIZES, SOON, Background, payload

# No pipe can be expected to keep so many bytes in messages for a reader that does not read.
TOO_MUCH = 128 * MIB


@pytest.fixture(params=[True, False], ids=["duplex", "simplex"])
def duplex(request):
    return request.param


@pytest.fixture
def pipe(ctx, duplex):
    """A reader and a writer."""
    reader, writer = ctx.Pipe(duplex)
    with reader, writer:
        yield reader, writer


@pytest.fixture
def ends(ctx):
    """Two ends that both read and write."""
    a, b = ctx.Pipe()
    with a, b:
        yield a, b


def test_is_a_stock_connection(pipe, duplex):
    reader, writer = pipe
    for end in pipe:
        assert isinstance(end, multiprocessing.connection.Connection)
        assert not end.closed and isinstance(end.fileno(), int)
    assert (reader.readable, reader.writable) == (True, duplex)
    assert (writer.readable, writer.writable) == (duplex, True)


def test_keeps_messages_apart(pipe):
    reader, writer = pipe
    items = [1, "two", b"", None, [3] * 100]
    workers.send_all(writer, items)
    for piece in (b"", b"a", b"bc"):
        writer.send_bytes(piece)
    assert [reader.recv() for _ in items] == items
    assert [reader.recv_bytes() for _ in range(3)] == [b"", b"a", b"bc"]


def test_both_directions_at_once(ends):
    a, b = ends
    for number in range(100):
        a.send(number)
        b.send(-number)
    assert [b.recv() for _ in range(100)] == list(range(100))
    assert [a.recv() for _ in range(100)] == [-number for number in range(100)]


def test_messages_of_any_size(pipe):
    reader, writer = pipe
    sizes = [*SIZES, 64 * MIB]
    sender = Background(lambda: [writer.send_bytes(payload(size)) for size in sizes])
    for size in sizes:
        taken = reader.recv_bytes()
        assert len(taken) == size and taken == payload(size)
    sender.result()


def test_echo_by_a_child(ends, family):
    here, there = ends
    family.start(workers.echo, there, here)
    there.close()
    for number in range(300):
        here.send((number, payload(number)))
        assert here.recv() == (number, payload(number))
    for size in SIZES:
        here.send(payload(size))
        assert here.recv() == payload(size)
    here.close()


@pytest.mark.parametrize("method", ["recv", "recv_bytes", "poll"])
def test_a_blocked_reader_wakes(pipe, method):
    reader, writer = pipe
    args = [SOON] if method == "poll" else []
    waiting = Background(getattr(reader, method), *args)
    assert waiting.blocked()
    writer.send(b"x")
    result = waiting.result()
    if method == "recv_bytes":
        result = pickle.loads(result)
    assert result == (True if method == "poll" else b"x")


def test_one_thread_reads_while_another_writes(ends):
    a, b = ends
    waiting = Background(a.recv)
    assert waiting.blocked()
    a.send("out")
    assert b.recv() == "out"
    b.send("in")
    assert waiting.result() == "in"


def test_numpy_array(pipe):
    numpy = pytest.importorskip("numpy", reason="arrays are optional")
    reader, writer = pipe
    sent = numpy.arange(MIB, dtype=numpy.float32).reshape(64, -1)
    sender = Background(writer.send, sent)
    taken = reader.recv()
    sender.result()
    numpy.testing.assert_array_equal(taken, sent)
    assert taken.dtype == sent.dtype and taken.flags.writeable


def test_send_bytes_takes_parts(pipe):
    reader, writer = pipe
    data = b"abcdefghijklmnopqrstuvwxyz"
    for args, expected in (
        ((), data),
        ((7,), data[7:]),
        ((7, 4), data[7:11]),
        ((26,), b""),
        ((26, 0), b""),
        ((0, 26), data),
    ):
        writer.send_bytes(data, *args)
        assert reader.recv_bytes() == expected
    for args, message in (
        ((27,), "buffer length < offset"),
        ((22, 5), r"buffer length < offset \+ size"),
        ((26, 1), r"buffer length < offset \+ size"),
        ((-1,), "offset is negative"),
        ((4, -1), "size is negative"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.send_bytes(data, *args)
    assert not reader.poll()


@pytest.mark.parametrize(
    "buffer",
    [b"abcdefgh", bytearray(b"abcdefgh"), memoryview(b"abcdefgh"), array.array("H", range(4))],
    ids=lambda buffer: type(buffer).__name__,
)
def test_any_buffer_is_sent(pipe, buffer):
    reader, writer = pipe
    whole = memoryview(buffer).tobytes()
    writer.send_bytes(buffer)
    writer.send_bytes(buffer, 3, 4)
    assert reader.recv_bytes() == whole
    assert reader.recv_bytes() == whole[3:7]


@pytest.mark.parametrize("bad", ["text", 5, None, [1]])
def test_what_is_no_buffer_is_refused(pipe, bad):
    reader, writer = pipe
    with pytest.raises(TypeError):
        writer.send_bytes(bad)
    assert not reader.poll()


def test_unpicklable_raises_and_sends_nothing(pipe):
    reader, writer = pipe
    with pytest.raises(NotImplementedError, match="no pickling"):
        writer.send(workers.ReduceRaises())
    assert not reader.poll()
    writer.send(workers.LoadRaises())
    writer.send("next")
    with pytest.raises(ValueError, match="no unpickling"):
        reader.recv()
    assert reader.recv() == "next"


def test_recv_bytes_into(pipe):
    reader, writer = pipe
    target = bytearray(10)
    writer.send_bytes(b"hello")
    assert reader.recv_bytes_into(target) == 5
    assert target == b"hello\0\0\0\0\0"
    writer.send_bytes(b"world")
    assert reader.recv_bytes_into(memoryview(target), 5) == 5
    assert target == b"helloworld"
    writer.send_bytes(b"")
    assert reader.recv_bytes_into(target, 10) == 0
    numbers = array.array("i", [0] * 4)
    writer.send_bytes(array.array("i", [7, 8]))
    assert reader.recv_bytes_into(numbers, 2 * numbers.itemsize) == 2 * numbers.itemsize
    assert list(numbers) == [0, 0, 7, 8]


@pytest.mark.parametrize("size", [20, 2 * MIB])
def test_a_buffer_too_short_yields_the_message(pipe, size):
    reader, writer = pipe
    sender = Background(writer.send_bytes, payload(size))
    with pytest.raises(multiprocessing.BufferTooShort) as caught:
        reader.recv_bytes_into(bytearray(10))
    assert caught.value.args == (payload(size),)
    sender.result()
    writer.send_bytes(b"next")
    assert reader.recv_bytes() == b"next"


def test_recv_bytes_into_checks_its_arguments(pipe):
    reader, writer = pipe
    writer.send_bytes(b"x")
    with pytest.raises(ValueError, match="negative offset"):
        reader.recv_bytes_into(bytearray(4), -1)
    with pytest.raises(ValueError, match="offset too large"):
        reader.recv_bytes_into(bytearray(4), 5)
    with pytest.raises(TypeError):
        reader.recv_bytes_into("text")
    assert reader.recv_bytes() == b"x"


def test_maxlength(pipe, duplex):
    reader, writer = pipe
    writer.send_bytes(b"12345")
    writer.send_bytes(b"123456")
    with pytest.raises(ValueError, match="negative maxlength"):
        reader.recv_bytes(-1)
    assert reader.recv_bytes(5) == b"12345"
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(5)
    # Stock cannot find the next message after this, so it gives the direction up.
    assert not reader.readable if duplex else reader.closed


def test_wrong_direction(ctx):
    reader, writer = ctx.Pipe(False)
    with reader, writer:
        for call in (lambda: reader.send(1), lambda: reader.send_bytes(b"1")):
            with pytest.raises(OSError, match="read-only"):
                call()
        for call in (
            writer.recv,
            writer.recv_bytes,
            writer.poll,
            lambda: writer.recv_bytes_into(bytearray(1)),
        ):
            with pytest.raises(OSError, match="write-only"):
                call()


def test_closed(ends):
    a, b = ends
    a.close()
    a.close()
    assert a.closed and not b.closed
    for call in (
        a.recv,
        a.recv_bytes,
        a.poll,
        a.fileno,
        lambda: a.send(1),
        lambda: a.send_bytes(b"1"),
        lambda: a.recv_bytes_into(bytearray(1)),
    ):
        with pytest.raises(OSError, match="handle is closed"):
            call()


def test_context_manager_and_del_close(ctx):
    a, b = ctx.Pipe()
    with a as same:
        assert same is a
    assert a.closed
    with pytest.raises(EOFError):
        b.recv()
    b.close()
    a, b = ctx.Pipe()
    del a
    with b, pytest.raises(EOFError):
        b.recv()


def test_poll(pipe):
    reader, writer = pipe
    assert reader.poll() is False
    assert reader.poll(0) is False
    assert reader.poll(-1) is False
    before = time.monotonic()
    assert reader.poll(A_WHILE) is False
    assert time.monotonic() - before >= A_WHILE * 0.95
    writer.send_bytes(b"")
    for timeout in (0, -1, SOON, None):
        assert reader.poll(timeout) is True
    assert reader.recv_bytes() == b""
    assert reader.poll() is False
    writer.close()
    assert reader.poll() is True and reader.poll(None) is True
    with pytest.raises(EOFError):
        reader.recv()
    assert reader.poll() is True


def test_poll_takes_nothing_from_another_reader(pipe):
    reader, writer = pipe
    polls = [Background(reader.poll, SOON) for _ in range(3)]
    writer.send_bytes(b"whole")
    assert all(poll.result() for poll in polls)
    assert reader.recv_bytes() == b"whole"


def test_messages_are_there_before_eof(pipe):
    reader, writer = pipe
    writer.send("last")
    writer.close()
    assert reader.recv() == "last"
    for call in (reader.recv, reader.recv_bytes, lambda: reader.recv_bytes_into(bytearray(1))):
        with pytest.raises(EOFError):
            call()


def test_writing_to_a_closed_peer(pipe):
    reader, writer = pipe
    reader.close()
    for call in (lambda: writer.send(1), lambda: writer.send_bytes(b"x" * MIB)):
        with pytest.raises(BrokenPipeError):
            call()


@pytest.mark.of_stream_sockets("it ends as a pipe does, with EOFError")
def test_a_peer_closed_with_unread_messages(ends):
    a, b = ends
    a.send("never read")
    b.send("arrived")
    b.close()
    # The kernel's answer on a stream socket, which stock passes on; what is lost is a.send's.
    with pytest.raises(ConnectionResetError):
        for _ in range(2):
            assert a.recv() == "arrived"
    with pytest.raises(BrokenPipeError):
        a.send(1)


@pytest.mark.watchdog(300)  # some mechanisms take a millisecond for a message
@pytest.mark.parametrize("size", [4 * KIB, MIB])
def test_a_full_pipe_blocks_its_writer(pipe, size):
    reader, writer = pipe
    count = TOO_MUCH // size
    waiting = Background(workers.send_payloads, writer, size, count)
    assert waiting.blocked()
    assert all(reader.recv_bytes() == payload(size) for _ in range(count))
    waiting.result()


def test_a_huge_message_holds_its_writer_until_it_is_taken(pipe):
    reader, writer = pipe
    waiting = Background(writer.send_bytes, payload(16 * MIB))
    assert waiting.blocked()
    assert reader.recv_bytes() == payload(16 * MIB)
    waiting.result()


def test_a_writer_held_by_a_huge_message_learns_that_the_reader_is_gone(pipe):
    reader, writer = pipe
    waiting = Background(writer.send_bytes, payload(16 * MIB))
    assert waiting.blocked()
    reader.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        waiting.result()


def test_a_slow_reader_loses_nothing(pipe, family):
    reader, writer = pipe
    length = Background(family.call, workers.recv_slowly, reader)
    writer.send_bytes(payload(16 * MIB))
    assert length.result() == 16 * MIB


def test_a_writer_blocked_on_a_closing_peer(pipe, family):
    reader, writer = pipe
    peer = family.start(workers.forever_holding, reader, writer, exitcode=None)
    reader.close()
    waiting = Background(workers.send_payloads, writer, MIB, TOO_MUCH // MIB)
    assert waiting.blocked()
    peer.kill()
    with pytest.raises(BrokenPipeError):
        waiting.result()


def test_a_reader_blocked_on_a_killed_peer(pipe, family):
    reader, writer = pipe
    peer = family.start(workers.forever_holding, writer, reader, exitcode=None)
    writer.close()
    waiting = Background(reader.recv)
    assert waiting.blocked()
    peer.kill()
    with pytest.raises(EOFError):
        waiting.result()


def test_messages_of_a_killed_writer_arrive(pipe, family):
    reader, writer = pipe
    items = list(range(100))
    family.start(workers.then_die, workers.send_all, writer, items, exitcode=-9)
    writer.close()
    assert [reader.recv() for _ in items] == items
    with pytest.raises(EOFError):
        reader.recv()


def test_eof_needs_every_writer_gone(pipe, family):
    reader, writer = pipe
    peer = family.start(workers.forever_holding, writer, reader, exitcode=None)
    family.call(workers.method, writer, "send", 1)
    writer.close()
    assert reader.recv() == 1
    assert not reader.poll(A_WHILE)
    peer.kill()
    with pytest.raises(EOFError):
        reader.recv()


def test_several_writers_and_readers_under_locks(pipe, ctx, family):
    reader, writer = pipe
    rlock, wlock = ctx.Lock(), ctx.Lock()
    takers = [Background(family.call, workers.recv_locked, rlock, reader) for _ in range(2)]
    parts = [range(300), range(300, 600)]
    senders = [
        Background(family.call, workers.send_locked, wlock, writer, parts[0]),
        Background(workers.send_locked, wlock, writer, parts[1]),
    ]
    for sender in senders:
        sender.result()
    workers.send_locked(wlock, writer, [None] * len(takers))
    assert sorted(item for taker in takers for item in taker.result()) == list(range(600))


def test_pickled_outside_spawning(ends):
    a, b = ends
    with pickle.loads(reduction.ForkingPickler.dumps(a)) as copy:
        copy.send(1)
        assert b.recv() == 1
        a.close()
        b.send(2)
        assert copy.recv() == 2
        assert not b.poll()
    with pytest.raises(EOFError):
        b.recv()


def test_sent_through_another_connection(ends, ctx, family):
    here, there = ends
    reader, writer = ctx.Pipe(False)
    with reader:
        family.start(workers.send_through, there, "through")
        with writer:
            here.send(writer)
            assert reader.recv() == "through"
        with pytest.raises(EOFError):
            reader.recv()


@pytest.mark.of_stream_sockets("nothing else carries descriptors")
def test_a_descriptor_is_sent(ends, family, tmp_path):
    here, there = ends
    (tmp_path / "file").write_bytes(b"content")
    process = family.start(workers.forever_holding, there, exitcode=None)
    content = Background(family.call, workers.recv_fd, there)
    with open(tmp_path / "file", "rb") as file:
        reduction.send_handle(here, file.fileno(), process.pid)
        assert content.result() == b"content"
    process.kill()


@pytest.mark.of_stream_sockets("that is the question")
def test_a_duplex_end_is_a_stream_socket(ends):
    for end in ends:
        with socket.socket(fileno=os.dup(end.fileno())) as twin:
            assert (twin.family, twin.type) == (socket.AF_UNIX, socket.SOCK_STREAM)


def test_the_default_timeout_of_sockets_does_not_matter(ctx):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    try:
        a, b = ctx.Pipe()
    finally:
        socket.setdefaulttimeout(before)
    with a, b:
        waiting = Background(a.recv)
        assert waiting.blocked()
        b.send(1)
        assert waiting.result() == 1
