"""What is particular to the mechanism ``file``: the spool, its book, lock files, watches."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time

import pytest

import mpipc
from mpipc import OwnerDiedWarning
from mpipc.adapters import lockfiles, watches
from mpipc.adapters.lockfiles import Counter, LockFile
from mpipc.adapters.watches import Exclusive, Watch
from mpipc.mechanisms import file

ctx = mpipc.get_context("file", start_method="fork")


@pytest.fixture
def spool():
    return file.Spool()


def is_readable(watch):
    return bool(select.select([watch], [], [], 0)[0])


def messages(spool):
    return sorted(name for name in os.listdir(spool.directory) if name != "book")


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def read_book(spool):
    with open(spool._book, "rb") as book:
        return file.BOOK.unpack(book.read())


def test_everything_is_private(spool):
    assert spool.try_send(b"x")
    assert os.stat(spool.directory).st_mode & 0o777 == 0o700
    for name in os.listdir(spool.directory):
        assert os.stat(spool._path(name)).st_mode & 0o777 == 0o600


def test_a_spool_is_gone_with_its_last_user():
    spool = file.Spool()
    path = spool.directory
    spool.try_send(b"unread")
    process = ctx.Process(target=time.sleep, args=(100,))
    process.start()
    del spool
    assert os.path.exists(path)
    kill(process)
    # Its child had it too; who cleans up finds that nobody does now.
    name = os.path.basename(path).partition(".")[0]
    assert name in list(mpipc.adapters.leases.clean())
    assert not os.path.exists(path)


def test_messages_come_in_order_and_once(spool):
    for number in range(20):
        assert spool.try_send(b"%d" % number)
    assert [spool.try_recv() for _ in range(21)] == [b"%d" % n for n in range(20)] + [None]
    assert read_book(spool)[1:] == (0, 0)


def test_room(spool):
    assert spool.try_send(bytes(3 * file.MOST_BYTES)), "a long message travels alone"
    assert not spool.try_send(b"x")
    watch, event = spool.writable_fd()
    assert event == select.POLLIN and not is_readable(watch)
    spool.try_recv()
    assert is_readable(watch)
    assert is_readable(spool.writable_fd()[0]), "it has changed since the refusal"
    assert spool.try_send(b"x")


def test_the_descriptor_follows_the_messages(spool):
    bell, (watch, _) = spool.readable_fd(), spool.arrival()
    assert not is_readable(bell) and not is_readable(watch)
    spool.try_send(b"x")
    spool.try_send(b"y")
    for _ in range(2):
        assert is_readable(bell) and is_readable(spool.arrival()[0])
        spool.try_recv()
    assert not is_readable(bell) and not is_readable(spool.arrival()[0])


def test_what_killed_senders_leave(spool, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    process = ctx.Process(target=spool.try_send, args=(bytes(file.MOST_BYTES),))
    process.start()
    process.join()
    monkeypatch.undo()
    assert messages(spool)[0].startswith(f"new.{process.pid}-")
    assert read_book(spool)[1:] == (1, file.MOST_BYTES), "booked, never sent"
    assert spool.try_send(b"x"), "there is room all the same"
    assert messages(spool) == ["0000000000000001.1"]
    assert (spool.try_recv(), spool.try_recv()) == (b"x", None)


def test_a_receiver_killed_while_it_takes(spool, monkeypatch):
    spool.try_send(b"x")
    real = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (real(path), os.kill(os.getpid(), 9)))
    process = ctx.Process(target=spool.try_recv)
    process.start()
    process.join()
    monkeypatch.undo()
    assert not spool.waiting()
    assert spool.try_recv() is None
    assert read_book(spool)[1:] == (0, 0)


def test_each_process_has_its_own_descriptor():
    reader, writer = ctx.Pipe(False)
    assert not is_readable(reader)

    def take():
        assert reader.poll(20) and is_readable(reader)
        assert reader.recv() == 1
        assert not is_readable(reader)

    process = ctx.Process(target=take)
    process.start()
    writer.send(1)
    process.join()
    assert process.exitcode == 0
    assert not is_readable(reader), "the other took it"
    writer.send(2)
    assert is_readable(reader)
    assert reader.recv() == 2
    assert not is_readable(reader)


def test_without_inotify(monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "inotify_init1: none left")

    monkeypatch.setattr(watches._kernel, "inotify_init1", fail)
    monkeypatch.setattr(watches, "_idle", [])
    reader, writer = ctx.Pipe(False)
    lock = ctx.Lock()
    lock.acquire()
    threading.Timer(0.1, writer.send, (1,)).start()
    threading.Timer(0.2, lock.release).start()
    assert reader.recv() == 1
    assert lock.acquire(timeout=20)


@pytest.mark.parametrize("stop", ["unlink", "pwrite"])
def test_a_sender_notices_a_receiver_that_is_half_done(monkeypatch, stop):
    """Just before it removes the file, or before it writes the book."""
    spool = file.Spool()
    while spool.try_send(bytes(1 << 18)):
        pass
    before, go, real = threading.Event(), threading.Event(), getattr(os, stop)
    receiver = threading.Thread(target=spool.try_recv)

    def pause(*args):
        if threading.current_thread() is receiver:
            before.set()
            go.wait(20)
        return real(*args)

    monkeypatch.setattr(file.os, stop, pause)
    receiver.start()
    assert before.wait(20)
    threading.Timer(0.2, go.set).start()
    poller = select.poll()
    watch, event = spool.writable_fd()
    poller.register(watch, event)
    assert poller.poll(20_000)
    receiver.join()
    assert spool.try_send(bytes(1 << 18))


def test_watches_are_used_again(tmp_path):
    Watch(str(tmp_path), watches._kernel.IN_DELETE).close()
    idle = list(watches._idle)
    (tmp_path / "x").touch()
    watch = Watch(str(tmp_path), watches._kernel.IN_DELETE)
    assert watch.fileno() in idle and not is_readable(watch)
    (tmp_path / "x").unlink()
    assert is_readable(watch)
    other = Watch(str(tmp_path), watches._kernel.IN_DELETE)
    assert not is_readable(other)
    other.ring()
    assert is_readable(other)


def test_exclusive_is_free_after_a_kill_and_beside_a_fork(tmp_path):
    path = str(tmp_path / "file")
    open(path, "w").close()

    def hold(conn):
        with Exclusive(path):
            conn.send(1)
            time.sleep(100)

    a, b = ctx.Pipe()
    process = ctx.Process(target=hold, args=(b,))
    process.start()
    a.recv()
    kill(process)
    with Exclusive(path):
        process = ctx.Process(target=time.sleep, args=(100,))
        process.start()
    with Exclusive(path):
        pass
    kill(process)


@pytest.fixture
def lock():
    return LockFile()


def in_child(call, *args):
    process = ctx.Process(target=call, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_lock_file_holds_its_owner(lock):
    assert lock.acquire(0)
    assert os.readlink(lock._path) == lockfiles.me()
    assert not lock.acquire(0.01)
    in_child(lock.release)
    assert lock.value() == 1
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()


def test_a_lock_left_at_a_normal_exit_stays_held(lock):
    in_child(lock.acquire, None)
    assert os.readlink(lock._path) == lockfiles.ENDED
    assert not lock.acquire(0.05)
    threading.Timer(0.1, lock.release).start()
    assert lock.acquire(20)


def die(lock):
    lock.acquire(None)
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_of_many_takes_over_from_the_dead(lock):
    process = ctx.Process(target=die, args=(lock,))
    process.start()
    process.join()
    with pytest.warns(OwnerDiedWarning, match=f"process {process.pid} died holding"):
        assert lock.acquire(0)
    assert not lock.acquire(0)
    assert sorted(os.listdir(lock._directory)) == ["guard", "lock"]


def test_killed_while_taking_over(lock, monkeypatch):
    process = ctx.Process(target=die, args=(lock,))
    process.start()
    process.join()
    monkeypatch.setattr(os, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    process = ctx.Process(target=lock.acquire, args=(0,))
    process.start()
    process.join()
    monkeypatch.undo()
    with pytest.warns(OwnerDiedWarning):
        assert lock.acquire(0)
    lock.release()
    assert os.listdir(lock._directory) == ["guard"]


def test_a_later_process_with_the_same_pid_is_another():
    pid, _, started = lockfiles.me().partition("-")
    assert not lockfiles.is_dead(f"{pid}-{started}")
    assert lockfiles.is_dead(f"{pid}-{int(started) - 1}")


def test_a_counter_counts():
    counter = Counter(2)
    assert counter.acquire(0) and counter.acquire(0) and not counter.acquire(0.01)
    threading.Timer(0.1, counter.release).start()
    assert counter.acquire(20)
    assert counter.value() == 0


def test_limits():
    assert file.limits()["fs.inotify.max_user_instances"] > 0
