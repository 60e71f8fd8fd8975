"""What is particular to the mechanism ``signal``: waiters in slots, and calling them."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import threading
import time

import pytest

import mpipc
from mpipc.mechanisms import signal

ctx = mpipc.get_context("signal", start_method="fork")


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_slots(waiters):
    return [word for word in waiters._words[1:] if word]


def start(call, *args):
    process = ctx.Process(target=call, args=args)
    process.start()
    return process


def kill(process):
    os.kill(process.pid, signals.SIGKILL)
    process.join()


def test_a_waiter_is_called_and_leaves(monkeypatch):
    monkeypatch.setattr(signal, "SLICE", 30)
    units = signal.Units(0)
    process = start(units.acquire, None)
    wait_until(lambda: in_slots(units._waiters))
    began = time.monotonic()
    units.release()
    process.join()
    assert process.exitcode == 0 and time.monotonic() - began < 20, "a call, not the slice"
    assert in_slots(units._waiters) == []


def test_the_longest_waiter_is_called_first(monkeypatch):
    monkeypatch.setattr(signal, "SLICE", 30)
    units, order = signal.Units(0), []
    threads = []
    for number in range(3):
        threads.append(
            threading.Thread(target=lambda n=number: (units.acquire(None), order.append(n)))
        )
        threads[-1].start()
        wait_until(lambda: len(in_slots(units._waiters)) == len(threads))
    for number in range(3):
        units.release()
        wait_until(lambda number=number: len(order) == number + 1)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2]


def test_a_killed_waiter_is_passed_over(monkeypatch):
    units = signal.Units(0)
    process = start(units.acquire, None)
    wait_until(lambda: in_slots(units._waiters))
    kill(process)
    monkeypatch.setattr(signal, "SLICE", 30)
    process = start(units.acquire, None)
    # It may have had the dead one's slot.
    wait_until(lambda: any(word >> 42 == process.pid for word in in_slots(units._waiters)))
    units.release()
    process.join()
    assert process.exitcode == 0


def test_no_other_program_is_sent_the_signal():
    other = subprocess.Popen(["sleep", "100"], restore_signals=True)
    # Popen's child has inherited that the signal is ignored; this one is as a foreign program is.
    victim = subprocess.Popen(
        ["sleep", "100"], preexec_fn=lambda: signals.signal(signal.SIGNAL, signals.SIG_DFL)
    )
    for process in (other, victim):
        waiters = signal.Waiters()
        waiters._words[1] = process.pid << 42 | process.pid << 20 | signal.WAITING
        assert waiters.wake() is (process is other)
    time.sleep(0.1)
    assert other.poll() is None and victim.poll() is None
    for process in (other, victim):
        process.kill()
        process.wait()


def test_the_mask_is_as_before():
    units = signal.Units(1)
    assert units.acquire(None) and not units.acquire(0.01)
    assert signal.SIGNAL not in signals.pthread_sigmask(signals.SIG_BLOCK, ())
    os.kill(os.getpid(), signal.SIGNAL)


def test_more_wait_than_there_are_slots(monkeypatch):
    units = signal.Units(0)
    monkeypatch.setattr(signal, "SLOTS", 2)
    threads = [threading.Thread(target=units.acquire, args=(None,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in threads:
        units.release()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_tickets_start_again():
    waiters = signal.Waiters()
    me = os.getpid() << 42 | threading.get_native_id() << 20
    waiters._words[0] = 1
    waiters._words[1] = me | 0 << 2 | signal.WAITING
    waiters._words[2] = me | (signal.TICKETS - 1) << 2 | signal.WAITING
    assert waiters.wake()
    assert waiters._words[2] & signal.STATE == signal.CALLED, "the ticket from before"


def test_a_sender_sleeps_here_too(monkeypatch):
    monkeypatch.setattr(signal, "SLICE", 30)
    reader, writer = ctx.Pipe(False)
    thread = threading.Thread(
        target=lambda: [writer.send_bytes(bytes(signal.MOST_BYTES)) for _ in range(3)]
    )
    thread.start()
    wait_until(lambda: in_slots(writer._outgoing.writers))
    for _ in range(3):
        assert len(reader.recv_bytes()) == signal.MOST_BYTES
    thread.join()


def test_close_is_told_at_once(monkeypatch):
    monkeypatch.setattr(signal, "SLICE", 30)
    a, b = ctx.Pipe()
    failed = []

    def read():
        with pytest.raises(EOFError):
            a.recv()
        failed.append(True)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: in_slots(a._incoming.readers))
    b.close()
    thread.join(20)
    assert failed


def test_limits():
    assert signal.limits()["RLIMIT_SIGPENDING"] != 0
