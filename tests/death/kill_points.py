"""Kill a process at every marked step of the core, and let the others carry on.

    make death                                    # builds a core with kill points, runs this
    python tests/death/kill_points.py [--json FILE] [SCENARIO...]

Each scenario runs once for each point that its victim passes, and for each of the first few times
that it passes it; there the victim sends itself SIGKILL. Then the survivors look at what is left
and go on working. The status is 0 if every point there is was reached and survived.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import os
import queue
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from core_memory import LOCK, LOOKED_AT, a_period_passes, assert_tiled, linked_pages, words

import mpipc
from mpipc import ShutDown, _core

ctx = mpipc.get_context("shm", start_method="fork")

# Of one point, the first passages and the last one.
PASSAGES = 3
TRIES = 5  # where a race decides whether a victim comes by
SOON = 20.0
NEVER = 1 << 60

KB = 1000
SMALL = [b"%d" % i for i in range(3)]


class Scenario:
    """A world, a victim in it, and what must be true when the victim is gone."""

    def victim(self) -> None:
        """What the victim does."""
        raise NotImplementedError

    def beside(self) -> None:
        """What the driver does meanwhile."""

    def play(self, index: int, passage: int) -> tuple[int, list[int]]:
        """The exit status of the victim, killed there, and how often it passed each point."""
        reader, writer = multiprocessing.connection.Pipe(False)

        def live() -> None:
            _core.die_at(index, passage)
            self.victim()
            writer.send([passed for _, passed in _core.kill_points()])

        victim = ctx.Process(target=live)
        victim.start()
        writer.close()
        self.beside()
        victim.join(SOON)
        hung = victim.exitcode is None
        if hung:
            victim.kill()
            victim.join()
        passed = []
        if victim.exitcode == 0:
            passed = reader.recv()
        reader.close()
        assert not hung, "the victim hung"
        return victim.exitcode, passed

    def check(self) -> None:
        """Raise unless all is well; then work on."""
        raise NotImplementedError


def another_killed(act: Callable[[], object], where: str | None = None, passage: int = 1) -> None:
    """Let another process than the victim do something, killed at a point of it or at its end."""

    def live() -> None:
        if where is not None:
            _core.die_at(index_of(where), passage)
        act()
        if where is None:
            os.kill(os.getpid(), signal.SIGKILL)

    other = ctx.Process(target=live)
    other.start()
    other.join()
    assert other.exitcode == -signal.SIGKILL, f"nobody came to {where!r}: {other.exitcode}"


SCENARIOS: dict[str, Callable[[], Scenario]] = {}


def scenario(made: Callable[[], Scenario]) -> Callable[[], Scenario]:
    SCENARIOS[made.__name__] = made
    return made


# -- queues --------------------------------------------------------------------------------------


class Channel(Scenario):
    """A queue that holds `before`; the victim puts `puts` and takes `takes` messages."""

    before: list[bytes] = SMALL
    puts: list[bytes] = []
    takes = 0
    maxsize = 0
    exposed = False

    def __init__(self) -> None:
        self.queue = ctx.Queue(self.maxsize)
        for message in self.before:
            self.queue.put(message)
        if self.exposed:
            self.queue._reader.fileno()

    def victim(self) -> None:
        for message in self.puts:
            self.queue.put(message)
        for _ in range(self.takes):
            self.queue.get()

    def left(self) -> list[bytes]:
        """All that waits."""
        found = []
        while True:
            try:
                found.append(self.queue.get(timeout=0.05))
            except queue.Empty:
                return found

    def check(self) -> None:
        if self.exposed:
            ready = bool(connection.wait([self.queue._reader], 0))
            assert ready == bool(self.queue.qsize()), "the descriptor does not tell what is there"
        found = self.left()
        # Whole, in order: from some point on of what was there, and up to some of what was put.
        whole = [*self.before, *self.puts]
        assert any(
            found == whole[start:stop]
            for start in range(self.takes + 1)
            for stop in range(len(self.before), len(whole) + 1)
        ), f"{len(found)} messages that are not a part of the {len(whole)}"
        self.work_on()

    def work_on(self) -> None:
        """Send and receive through the same queue, in both roles; nothing is left over."""
        messages = [os.urandom(size) for size in (0, 10, 5 * KB, 200, 70 * KB, 3 * KB) * 20]
        for role in (give_all, take_all):
            child = ctx.Process(target=role, args=(self.queue, messages))
            child.start()
            (take_all if role is give_all else give_all)(self.queue, messages)
            child.join(SOON)
            assert child.exitcode == 0, f"a survivor ended with {child.exitcode}"
        report = self.queue.segment.inspect()
        assert_tiled(report)
        assert report["count"] == report["backlog"] == 0, report
        # What a dead one holds is swept when memory is short; the living hold nothing.
        for _, _, holder in report["extents"]:
            assert holder in ("free", "empty", "linked") or not lives(holder), report


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def give_all(target: Any, messages: list[bytes]) -> None:
    for message in messages:
        target.put(message, timeout=SOON)


def take_all(source: Any, messages: list[bytes]) -> None:
    for message in messages:
        assert source.get(timeout=SOON) == message, "a message is damaged"


@scenario
class FirstPut(Channel):
    before = []
    puts = SMALL


@scenario
class PutSmall(Channel):
    puts = [b"of the victim"]
    exposed = True


@scenario
class PutLarge(Channel):
    puts = [bytes(100 * KB), bytes(30 * KB)]


@scenario
class PutMuch(Channel):
    """Chunk after chunk, page after page."""

    puts = [bytes(1 * KB) for _ in range(90)] + [bytes(3 * KB * KB)]


@scenario
class PutIntoWarmMemory(Channel):
    """Into an empty queue past the middle of its chunk, and where extents were freed and merged."""

    before = []
    puts = [b"a", bytes(40 * KB), bytes(9 * KB), b"b"]

    def __init__(self) -> None:
        super().__init__()
        for size in (*[900] * 40, 20 * KB, 60 * KB, 20 * KB, 900):
            self.queue.put(bytes(size))
        self.left()


@scenario
class TakeSmall(Channel):
    before = [b"%d" % i for i in range(6)]
    takes = 3


@scenario
class TakeLarge(Channel):
    before = [bytes(100 * KB), b"x", bytes(50 * KB), bytes(20 * KB), b"y"]
    takes = 4


@scenario
class TakeMuch(Channel):
    before = [b"%04d" % i + bytes(1 * KB) for i in range(200)]
    takes = 190


@scenario
class TakeLast(Channel):
    before = [b"the only one"]
    takes = 1
    exposed = True


@scenario
class TakeClaimed(Channel):
    """Each take notes in a word which message it takes, for those who come after."""

    before = [b"%d" % i for i in range(6)]
    takes = 3

    def __init__(self) -> None:
        self.queue = ctx.SimpleQueue()
        for message in self.before:
            self.queue.put(message)
        self.word = ctx.RawArray("Q", 1)

    def victim(self) -> None:
        self.queue._claim(self.word)
        super().victim()

    def check(self) -> None:
        noted = self.word[0]
        gone = noted if noted == 0 or self.queue._has_left(noted) else noted - 1
        for message in self.before[gone:]:
            assert self.queue.get() == message, "the note is wrong"
        assert self.queue.empty()
        assert_tiled(self.queue.segment.inspect())


@scenario
class PutAndTake(Channel):
    """One process after the other, with holes in memory."""

    before = [bytes(size * KB) for size in (5, 30, 5, 60, 5)]
    puts = [bytes(30 * KB), bytes(5 * KB), bytes(200 * KB)]
    takes = 4


@scenario
class PutIntoSpare(Channel):
    """One emptied chunk is kept for the next need."""

    before = []
    puts = [bytes(1 * KB) for _ in range(70)]

    def __init__(self) -> None:
        super().__init__()
        give_all(self.queue, [bytes(1 * KB)] * 200)
        self.left()


@scenario
class Holes(Channel):
    """Free extents of one size class that cannot be joined, for dead holders' lie between them."""

    before = [bytes(size * KB) for size in (45, 36, 36, 70, 5)]
    takes = 4
    puts = [bytes(44 * KB), bytes(30 * KB), bytes(30 * KB)]

    def __init__(self) -> None:
        self.queue = ctx.Queue()
        # So much memory that nobody looks for what the dead hold.
        give_all(self.queue, [bytes(3 * KB * KB)])
        self.left()
        for message in self.before:
            self.queue.put(message)
            another_killed(
                lambda: self.queue.put(bytes(5 * KB)), "put: extent filled, not yet linked"
            )

    def victim(self) -> None:
        for _ in range(self.takes):
            self.queue.get()
        give_all(self.queue, self.puts)


class Idle(Channel):
    """A queue with much memory, which it has not needed for a while."""

    before = []
    large = 9 * KB * KB

    def __init__(self) -> None:
        super().__init__()
        give_all(self.queue, [bytes(self.large)])
        self.left()
        a_period_passes(self.queue.segment)

    def wait_in_vain(self) -> None:
        with contextlib.suppress(queue.Empty):
            self.queue.get(timeout=0.25)  # longer than a slice


@scenario
class GiveMemoryBack(Idle):
    def victim(self) -> None:
        self.wait_in_vain()


@scenario
class GiveMemoryBackBetween(Idle):
    """... of an extent behind which another lies that is not free; and as messages come and go."""

    def __init__(self) -> None:
        self.queue = ctx.Queue()
        give_all(self.queue, [bytes(self.large)])
        another_killed(lambda: self.queue.put(bytes(5 * KB)), "put: extent filled, not yet linked")
        self.left()
        a_period_passes(self.queue.segment)

    def victim(self) -> None:
        for _ in range(150):
            self.queue.put(bytes(500))
            self.queue.get()
        self.wait_in_vain()

    def check(self) -> None:
        assert self.left() in ([], [bytes(500)])
        self.work_on()


@scenario
class UseWhatWasGivenBack(Idle):
    """A part of it, all of it, all of it and what lies before it."""

    puts = [bytes(3 * KB * KB), b"x", bytes(8 * KB * KB)]

    def __init__(self) -> None:
        super().__init__()
        self.wait_in_vain()

    def victim(self) -> None:
        self.queue.put(self.puts[0])
        self.queue.get()
        give_all(self.queue, self.puts[1:])

    def check(self) -> None:
        found = self.left()
        assert found in ([], self.puts[:1], *[self.puts[1:stop] for stop in (2, 3)]), len(found)
        self.work_on()


@scenario
class BothAtOnce(Channel):
    """Contended: two threads here put and take while the victim does."""

    before = []

    def victim(self) -> None:
        for number in range(3000):
            self.queue.put(b"victim %d" % number)
            self.queue.get()

    def beside(self) -> None:
        def work() -> None:
            for number in range(3000):
                self.queue.put(b"driver %d" % number)
                # The victim may have died with one of ours in its hands.
                try:
                    self.queue.get(timeout=0.2)
                except queue.Empty:
                    return

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def check(self) -> None:
        self.left()
        self.work_on()


class Waiting(Channel):
    """The victim waits for what the driver does a little later."""

    before: list[bytes] = []
    pause = 0.03

    def beside(self) -> None:
        time.sleep(self.pause)
        self.queue.put(b"late")

    def victim(self) -> None:
        self.queue.get(timeout=SOON)

    def check(self) -> None:
        found = self.left()
        assert found in ([], [b"late"]), found
        self.work_on()


@scenario
class WaitForMessage(Waiting):
    pass


@scenario
class WaitInVain(Waiting):
    def beside(self) -> None:
        """Nothing."""

    def victim(self) -> None:
        with contextlib.suppress(queue.Empty):
            self.queue.get(timeout=0.02)


@scenario
class WakeAndLeave(Waiting):
    """Who only polls passes the wake-up on."""

    def victim(self) -> None:
        self.queue._reader.poll(SOON)

    def beside(self) -> None:
        taken: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        time.sleep(0.01)
        other = threading.Thread(target=lambda: taken.put(self.queue.get(timeout=SOON)))
        other.start()
        time.sleep(self.pause)
        self.queue.put(b"late")
        other.join()
        assert taken.get() == b"late"


@scenario
class WakeSleeper(Channel):
    """A thread here sleeps until the victim puts, or somebody else after it."""

    before = []
    puts = [b"of the victim"]

    def beside(self) -> None:
        self.taken = []
        self.thread = threading.Thread(target=lambda: self.taken.append(self.queue.get()))
        self.thread.start()

    def victim(self) -> None:
        time.sleep(0.03)
        super().victim()

    def check(self) -> None:
        self.queue.put(b"of another")
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "the sleeper was not woken"
        found = self.taken + self.left()
        assert found in ([b"of another"], [b"of the victim", b"of another"]), found
        self.work_on()


@scenario
class WakeDeadSleeper(Channel):
    """Who was asleep with a ticket has been killed; the victim's wake-up finds nobody."""

    before = []
    puts = [b"1", b"2"]

    def __init__(self) -> None:
        super().__init__()
        sleepers = [ctx.Process(target=self.queue.get) for _ in range(2)]
        for sleeper in sleepers:
            sleeper.start()
        while self.queue.segment.inspect()["get_tickets"] < len(sleepers):
            time.sleep(0.001)
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.join()


@scenario
class WaitForRoom(Channel):
    maxsize = 3

    def victim(self) -> None:
        self.queue.put(b"late", timeout=SOON)

    def beside(self) -> None:
        time.sleep(0.03)
        assert self.queue.get(timeout=SOON) == self.before[0]

    def check(self) -> None:
        found = self.left()
        assert found in ([*self.before[1:], b"late"], self.before[1:]), found
        self.work_on()


@scenario
class ShutDownQueue(Channel):
    """A thread here waits for room in the queue that the victim shuts down and empties."""

    before = [bytes(100 * KB), b"x", b"y"]
    maxsize = 3

    def beside(self) -> None:
        self.told = threading.Event()
        self.thread = threading.Thread(target=self.wait_for_room)
        self.thread.start()

    def wait_for_room(self) -> None:
        try:
            self.queue.put(b"late")
        except ShutDown:
            self.told.set()

    def victim(self) -> None:
        time.sleep(0.03)
        self.queue.shutdown(immediate=True)

    def check(self) -> None:
        self.queue.shutdown()
        self.thread.join(SOON)
        assert self.told.is_set(), "who waited for room was not told"
        found = []
        with contextlib.suppress(ShutDown):
            while True:
                found.append(self.queue.get(timeout=SOON))
        assert found == self.before[len(self.before) - len(found) :], found
        assert_tiled(self.queue.segment.inspect())


@scenario
class MakeRoom(Channel):
    """A thread here waits for the room that the victim makes."""

    maxsize = 3

    def beside(self) -> None:
        self.thread = threading.Thread(target=self.queue.put, args=(b"late",))
        self.thread.start()

    def victim(self) -> None:
        time.sleep(0.03)
        self.queue.get()

    def check(self) -> None:
        found = [self.queue.get(timeout=SOON)]
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "there is room, and nobody was told"
        found += self.left()
        whole = [*self.before, b"late"]
        assert found in (whole, whole[1:]), found
        self.work_on()


@scenario
class FinishTasks(Scenario):
    def __init__(self) -> None:
        self.queue = ctx.JoinableQueue()
        for message in SMALL:
            self.queue.put(message)
            self.queue.get()

    def victim(self) -> None:
        for _ in SMALL:
            self.queue.task_done()

    def check(self) -> None:
        while self.queue._unfinished_tasks.get_value():
            self.queue.task_done()
        self.queue.join()
        with_tasks = threading.Thread(target=self.queue.join)
        self.queue.put(b"one more")
        with_tasks.start()
        self.queue.get()
        self.queue.task_done()
        with_tasks.join(SOON)
        assert not with_tasks.is_alive()


@scenario
class TakeTasks(Scenario):
    """What the victim took and did not finish is known, no more and no less."""

    tasks = 5

    def __init__(self) -> None:
        self.queue = ctx.JoinableQueue()
        for number in range(self.tasks):
            self.queue.put(bytes(number * 30 * KB))

    def victim(self) -> None:
        self.queue.get()
        self.queue.get()
        self.queue.task_done()
        self.queue.get()
        self.queue.task_done()
        self.queue.task_done()

    def check(self) -> None:
        if not self.queue.qsize():  # join() is the first to look
            with contextlib.suppress(mpipc.OwnerDied):
                self.queue.join()
        report = self.queue.segment.inspect()
        lost = self.queue._unfinished_tasks.get_value() - report["count"]
        assert list(report["takers"].values()) == [lost] * bool(lost), report
        while not self.queue.empty():
            self.queue.get()
            self.queue.task_done()
        try:
            self.queue.join()
        except mpipc.OwnerDied as error:
            assert lost and report["takers"] == {error.pid: lost}, error
        else:
            assert not lost, "nobody is blamed"
        for _ in range(lost):
            self.queue.task_done()
        self.queue.join()
        assert not self.queue.segment.inspect()["takers"]


@scenario
class TakeAllTasks(TakeTasks):
    tasks = 3


@scenario
class RecoverTakeTasks(TakeTasks):
    """Another was killed taking a task; the victim is who repairs."""

    where = "task: head written"
    passage = 1

    def __init__(self) -> None:
        super().__init__()
        another_killed(self.act, self.where, self.passage)

    def act(self) -> None:
        self.queue.get()
        self.queue.task_done()

    def check(self) -> None:
        report = self.queue.segment.inspect()
        lost = self.queue._unfinished_tasks.get_value() - report["count"]
        assert sum(report["takers"].values()) == lost, report
        while not self.queue.empty():
            self.queue.get()
            self.queue.task_done()
        for _ in range(lost):
            self.queue.task_done()
        self.queue.join()


@scenario
class RecoverFinishTasks(RecoverTakeTasks):
    where = "task: done written"
    passage = 2


@scenario
class JoinTheDead(Scenario):
    """The victim waits for what another had taken, and settles it."""

    def __init__(self) -> None:
        self.queue = ctx.JoinableQueue()
        self.queue.put(b"lost")
        another_killed(self.queue.get)

    def victim(self) -> None:
        with contextlib.suppress(mpipc.OwnerDied):
            self.queue.join()
        self.queue.task_done()

    def check(self) -> None:
        try:
            self.queue.join()
        except mpipc.OwnerDied:
            self.queue.task_done()
        self.queue.join()
        assert not self.queue.segment.inspect()["takers"]


class Redelivery(Scenario):
    """A JoinableQueue that hands on what the dead had in hand: not one message is lost."""

    messages = [b"%04d" % i + bytes(size * KB) for i, size in enumerate((0, 5, 0, 100, 1, 40))]
    exposed = True

    def __init__(self) -> None:
        self.queue = ctx.JoinableQueue(redeliver=True)
        if self.exposed:
            self.queue._reader.fileno()
        for message in self.messages:
            self.queue.put(message)
        # What was taken to be finished, in order; first, how many.
        self.finished = ctx.RawArray("i", len(self.messages) + 2)
        self.prepare()
        with words(self.queue.segment) as memory:
            memory.set64(LOOKED_AT, 0)  # the victim is the next to look for the dead

    def prepare(self) -> None:
        """What has happened before."""

    def left_by_dead(self, call: Callable[..., object], *args: Any) -> None:
        """Have another process call, which ends by SIGKILL."""
        taker = ctx.Process(target=self.then_die, args=(call, *args))
        taker.start()
        taker.join()
        assert taker.exitcode == -signal.SIGKILL, "it was not killed"

    def then_die(self, call: Callable[..., object], *args: Any) -> None:
        call(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    def take(self, count: int) -> None:
        for _ in range(count):
            self.queue.get(timeout=SOON)

    def take_to_finish(self, count: int) -> None:
        for _ in range(count):
            number = int(self.queue.get(timeout=SOON)[:4])
            self.finished[0] += 1
            self.finished[self.finished[0]] = number

    def finish(self, count: int) -> None:
        for _ in range(count):
            self.take_to_finish(1)
            self.queue.task_done()

    def victim(self) -> None:
        self.finish(len(self.messages))

    def check(self) -> None:
        ready = bool(connection.wait([self.queue._reader], 0))
        if self.exposed:
            self.queue.empty()  # repairs
            assert bool(connection.wait([self.queue._reader], 0)) == bool(self.queue.qsize()), ready
        unfinished = self.queue._unfinished_tasks.get_value()
        found = [self.queue.get(timeout=SOON) for _ in range(unfinished)]
        assert self.queue.empty(), "a message too many"
        # Nothing is lost and nothing done comes again. The last noted may not have been finished.
        numbers = [int(message[:4]) for message in found]
        done = len(self.messages) - unfinished
        told = f"after {done} were done came {numbers}"
        assert sorted(numbers + self.finished[1 : done + 1]) == [*range(len(self.messages))], told
        assert found == [self.messages[number] for number in numbers], "a message is damaged"
        for _ in range(unfinished):
            self.queue.task_done()
        self.work_on()

    def work_on(self) -> None:
        messages = [os.urandom(size) for size in (0, 10, 5 * KB, 200, 70 * KB, 3 * KB) * 20]
        for role in (give_all, self.finish_all):
            child = ctx.Process(target=role, args=(self.queue, messages))
            child.start()
            (self.finish_all if role is give_all else give_all)(self.queue, messages)
            joined = threading.Thread(target=self.queue.join)
            joined.start()
            joined.join(SOON)
            assert not joined.is_alive(), "join() waits for nothing"
            child.join(SOON)
            assert child.exitcode == 0, f"a survivor ended with {child.exitcode}"
        report = self.queue.segment.inspect()
        assert_tiled(report)
        assert report["count"] == report["backlog"] == 0 and not report["takers"], report
        assert linked_pages(report) <= 35, report

    def finish_all(self, source: Any, messages: list[bytes]) -> None:
        for message in messages:
            assert source.get(timeout=SOON) == message, "a message is damaged"
            source.task_done()


@scenario
class TakeAndFinish(Redelivery):
    pass


@scenario
class TakeManyAndFinish(Redelivery):
    def victim(self) -> None:
        for taken, finished in ((3, 2), (2, 2), (1, 2)):
            self.take_to_finish(taken)
            for _ in range(finished):
                self.queue.task_done()


@scenario
class TakeAgain(Redelivery):
    """Nothing waits, all is in the hands of two dead; the victim finds it."""

    def prepare(self) -> None:
        self.left_by_dead(self.take, 2)
        self.left_by_dead(self.take, len(self.messages))


@scenario
class TakeAgainBeforeOthers(Redelivery):
    """What the dead had in hand comes before what waits."""

    def prepare(self) -> None:
        self.left_by_dead(self.take, 3)

    def check(self) -> None:
        self.queue.empty()
        super().check()


@scenario
class TakeAgainFromTheMiddle(Redelivery):
    """The lane leads on from where head was: into another chunk, past an emptied one."""

    messages = [b"%04d" % i + bytes(10) for i in range(5000)]
    done = 4085

    def prepare(self) -> None:
        self.finish(self.done)
        self.left_by_dead(self.take, 6)

    def victim(self) -> None:
        self.finish(40)


@scenario
class JoinAndHandBack(Redelivery):
    """Who waits for all tasks hands back what others then do."""

    def prepare(self) -> None:
        self.left_by_dead(self.take, len(self.messages))

    def victim(self) -> None:
        self.queue.join()

    def beside(self) -> None:
        patience = time.monotonic() + 0.6  # the victim may be gone
        while not self.queue.qsize() and time.monotonic() < patience:
            time.sleep(0.001)
        self.finish(len(self.messages))


@scenario
class HandBackToSleeper(Redelivery):
    """A thread here sleeps; the victim only looks."""

    exposed = False

    def prepare(self) -> None:
        self.left_by_dead(self.take, len(self.messages))

    def victim(self) -> None:
        self.queue.empty()

    def beside(self) -> None:
        for _ in self.messages[:2]:
            thread = threading.Thread(target=self.finish, args=(1,))
            thread.start()
            thread.join(SOON)
            assert not thread.is_alive(), "nobody handed the message on"


class RecoverRedelivery(Redelivery):
    """Another was killed at `where`; the victim is who repairs."""

    where = "task: head written"
    passage = 1

    def prepare(self) -> None:
        self.left_by_dead(self.take, 3)
        with words(self.queue.segment) as memory:
            memory.set64(LOOKED_AT, 0)
        self.left_by_dead(self.die)

    def die(self) -> None:
        _core.die_at(index_of(self.where), self.passage)
        self.act()

    def act(self) -> None:
        """Find the dead one's three, hand them back and take one."""
        self.take(1)


@scenario
class RecoverDisowned(RecoverRedelivery):
    where = "extent: described"
    passage = 2


@scenario
class RecoverHandBack(RecoverRedelivery):
    passage = 2


@scenario
class RecoverHandBackBell(RecoverRedelivery):
    """All was taken, so to hand the first back must ring."""

    where = "hand: rung, not yet counted"

    def prepare(self) -> None:
        self.left_by_dead(self.take, len(self.messages))
        self.left_by_dead(self.die)


@scenario
class RecoverTakeInHand(RecoverRedelivery):
    passage = 4


@scenario
class RecoverFinishInHand(RecoverRedelivery):
    where = "task: done written"
    passage = 5

    def act(self) -> None:
        self.finish(1)

    def victim(self) -> None:
        self.finish(len(self.messages) - 1)


class Ends(Scenario):
    """A pipe; messages wait in it when the victim begins."""

    before = SMALL
    exposed = False

    def __init__(self) -> None:
        self.reader, self.writer = ctx.Pipe(False)
        for message in self.before:
            self.writer.send_bytes(message)
        if self.exposed:
            self.reader.fileno()

    def left(self) -> list[bytes]:
        found = []
        while self.reader.poll(0.05):
            found.append(self.reader.recv_bytes())
        return found

    def work_on(self) -> None:
        messages = [os.urandom(size) for size in (0, 10, 5 * KB, 200, 70 * KB) * 20]
        child = ctx.Process(target=lambda: [self.writer.send_bytes(m) for m in messages])
        child.start()
        for message in messages:
            assert self.reader.poll(SOON) and self.reader.recv_bytes() == message
        child.join(SOON)
        assert child.exitcode == 0


@scenario
class Send(Ends):
    exposed = True

    def victim(self) -> None:
        self.writer.send_bytes(b"of the victim")
        self.writer.send_bytes(bytes(50 * KB))

    def check(self) -> None:
        found = self.left()
        whole = [*SMALL, b"of the victim", bytes(50 * KB)]
        assert found in (whole[:3], whole[:4], whole), [len(message) for message in found]
        self.work_on()


@scenario
class SendFirst(Send):
    """Into a pipe in which nothing waits, whose reader looks at its descriptor."""

    before = []

    def check(self) -> None:
        found = self.left()
        assert found in ([], [b"of the victim"], [b"of the victim", bytes(50 * KB)])
        self.work_on()


@scenario
class Receive(Ends):
    exposed = True

    def victim(self) -> None:
        for _ in SMALL:
            self.reader.recv_bytes()

    def check(self) -> None:
        assert connection.wait([self.reader], 0) == [self.reader] * bool(self.left_now())
        found = self.left()
        assert found in [SMALL[taken:] for taken in range(4)], found
        self.work_on()

    def left_now(self) -> bool:
        return bool(self.reader.poll(0))


@scenario
class ReceiveLate(Ends):
    """The victim sleeps on the descriptor, which is what tells of a peer that is gone."""

    before = []

    def victim(self) -> None:
        self.reader.recv_bytes()

    def beside(self) -> None:
        time.sleep(0.05)
        self.writer.send_bytes(b"late")

    def check(self) -> None:
        assert self.left() in ([], [b"late"])
        self.work_on()


@scenario
class Expose(Ends):
    """To ask for the descriptor of a pipe that was rung and is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.left()

    def victim(self) -> None:
        self.reader.fileno()

    def check(self) -> None:
        assert not connection.wait([self.reader], 0)
        self.writer.send_bytes(b"x")
        assert connection.wait([self.reader], SOON) and self.left() == [b"x"]
        assert not connection.wait([self.reader], 0)
        self.work_on()


# -- recovery ------------------------------------------------------------------------------------


class Recover(Channel):
    """Another process was killed at `where` inside an operation; the victim is who repairs."""

    where = ""
    passage = 1
    before = [b"x", bytes(40 * KB), *[bytes(1 * KB)] * 30, bytes(20 * KB), b"y"]
    puts = [b"of the victim"]
    exposed = True

    def __init__(self) -> None:
        super().__init__()
        self.prepare()
        another_killed(self.act, self.where, self.passage)

    def prepare(self) -> None:
        """What has happened before."""

    def act(self) -> None:
        self.queue.put(bytes(9 * KB))
        self.queue.put(b"small")

    def check(self) -> None:
        found = self.left()
        # One of the dead's before that of the victim, or none; one taken by the dead, or none.
        mine = self.puts
        dead = [bytes(9 * KB), b"small"]
        allowed = [
            self.before[taken:] + dead[:put] + mine[:own]
            for taken in range(3)
            for put in range(3)
            for own in range(2)
        ]
        assert found in allowed, [len(message) for message in found]
        self.work_on()


@scenario
class RecoverPut(Recover):
    where = "put: committed"


@scenario
class RecoverAlloc(Recover):
    where = "take: the rest told"
    before = []

    def prepare(self) -> None:
        for size in (*[900] * 40, 20 * KB, 60 * KB, 20 * KB, 900):
            self.queue.put(bytes(size))
        self.left()


@scenario
class RecoverGrow(Recover):
    where = "grow: published"
    before = []


@scenario
class RecoverTake(Recover):
    where = "take: committed"

    def act(self) -> None:
        self.queue.get()
        self.queue.get()


@scenario
class RecoverSpare(Recover):
    where = "put: chunk entered"
    passage = 2
    before = []

    def act(self) -> None:
        for _ in range(300):
            self.queue.put(bytes(1 * KB))

    def check(self) -> None:
        found = self.left()
        assert all(message == bytes(1 * KB) for message in found[:-1]), "a message is damaged"
        self.work_on()


@scenario
class RecoverFirst(Recover):
    where = "format: all but the magic"
    before = []
    exposed = False


@scenario
class RecoverBell(Recover):
    where = "put: rung, not yet counted"
    before = []


@scenario
class RecoverStolenBell(Recover):
    """Somebody has read the byte that says that messages wait."""

    where = "put: committed"

    def prepare(self) -> None:
        with socket.socket(fileno=os.dup(self.queue._reader.fileno())) as bell:
            bell.recv(100, socket.MSG_DONTWAIT)


@scenario
class RecoverUnheard(Recover):
    """The kernel has not marked the lock of the dead, as after an out-of-memory kill."""

    where = "put: record begun"

    def __init__(self) -> None:
        super().__init__()
        gone = ctx.Process(target=int)
        gone.start()
        gone.join()
        with words(self.queue.segment) as memory:
            memory.set32(LOCK, gone.pid)


@scenario
class SweepDead(Channel):
    """Somebody was killed while filling an extent; the victim is who needs the memory."""

    before = []
    puts = [bytes(200 * KB)] * 3

    def __init__(self) -> None:
        super().__init__()
        another_killed(
            lambda: self.queue.put(bytes(150 * KB)), "put: large extent filled, not yet linked"
        )


@scenario
class RecoverFromSenders(Ends):
    """The victim, who repairs, has only the sending end."""

    exposed = True

    def __init__(self) -> None:
        super().__init__()
        another_killed(lambda: self.writer.send_bytes(b"of the dead"), "put: record begun")

    def victim(self) -> None:
        self.reader.close()
        self.writer.send_bytes(b"of the victim")

    def check(self) -> None:
        assert connection.wait([self.reader], 0)
        assert self.left() in (SMALL, [*SMALL, b"of the victim"])
        self.work_on()


# -- views ---------------------------------------------------------------------------------------


class Views(Channel):
    """Messages that are looked into where they lie."""

    before = [bytes([i]) * 50 * KB for i in range(3)]

    def __init__(self) -> None:
        self.queue = ctx.Queue(views=True)
        for message in self.before:
            self.queue.put(memoryview(message))

    def taken(self) -> list[memoryview]:
        return [self.queue.get() for _ in range(self.takes)]

    def left(self) -> list[bytes]:
        return list(map(bytes, super().left()))

    def intact(self, views: list[memoryview]) -> None:
        assert all(map(bytes.__eq__, map(bytes, views), self.before)), "a view shows other data"


@scenario
class PutEnclosed(Views):
    puts = [b"x" * 40 * KB, b"of the victim"]

    def victim(self) -> None:
        for message in self.puts:
            self.queue.put(memoryview(message))


@scenario
class TakeViews(Views):
    takes = 2

    def victim(self) -> None:
        self.intact(self.taken())


class Allotted(Views):
    """Arrays that are sent without a copy; who sent them goes on looking at them."""

    before = []

    def filled(self) -> Any:
        array = ctx.empty(50 * KB, "u1", to=self.queue)
        array[:] = 7
        return array

    def right(self, array: Any) -> None:
        assert array.tobytes() == b"\x07" * 50 * KB, "an array shows other data"


@scenario
class SendAllotted(Allotted):
    puts = [b"\x07" * 50 * KB]

    def victim(self) -> None:
        array = self.filled()
        self.queue.put(array)
        self.right(array)


class Sent(Allotted):
    """The driver has sent one, and still looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.array = self.filled()
        self.queue.put(self.array)

    def check(self) -> None:
        for message in self.left():
            assert message == b"\x07" * 50 * KB, "a message is damaged"
        for size in (60 * KB, 300 * KB):
            self.queue.put(bytes(size))
            self.queue.get()
        self.right(self.array)
        del self.array
        self.work_on()


@scenario
class TakeAllotted(Sent):
    """The victim has inherited it, too."""

    def victim(self) -> None:
        self.right(self.queue.get())
        self.right(self.array)
        del self.array


@scenario
class RecoverAllotted(Sent):
    """Who took it is killed before it is his; it is the sender's again."""

    def __init__(self) -> None:
        super().__init__()
        another_killed(self.queue.get, "take: committed")

    def victim(self) -> None:
        self.queue.put(bytes(60 * KB))

    def check(self) -> None:
        assert [len(message) for message in self.left()] in ([], [60 * KB])
        super().check()


@scenario
class ForkWithViews(Views):
    """The victim is forked by a process that holds views, and drops what it inherits."""

    takes = 2

    def victim(self) -> None:
        views = self.taken()
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            self.intact(views)
            if os.WIFSIGNALED(status):
                os.kill(os.getpid(), os.WTERMSIG(status))
            os._exit(os.WEXITSTATUS(status))
        self.intact(views)


@scenario
class DropInherited(Views):
    """The victim drops its views while its child looks at them."""

    takes = 2

    def victim(self) -> None:
        views = self.taken()
        here, there = os.pipe()
        if not os.fork():
            os.close(there)
            os.read(here, 1)
            self.intact(views)
            os._exit(0)
        views.clear()
        os.close(there)
        os.wait()


@scenario
class SweepHeirs(Views):
    """Who took views was killed; the victim finds that the child of that one still has them."""

    takes = 2
    puts = [bytes(300 * KB)] * 3

    def __init__(self) -> None:
        super().__init__()
        ready, tell = os.pipe()
        self.verdict, judge = os.pipe()
        go, self.let_go = os.pipe()
        holder = os.fork()
        if not holder:
            views = self.taken()
            if not os.fork():
                os.close(self.let_go)
                os.write(tell, b"x")
                os.read(go, 1)
                with contextlib.suppress(AssertionError):
                    self.intact(views)
                    os.write(judge, b"intact")
                os._exit(0)
            signal.pause()
        os.read(ready, 1)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        for fd in (ready, tell, judge, go):
            os.close(fd)

    def victim(self) -> None:
        os.close(self.let_go)
        for message in self.puts:
            self.queue.put(memoryview(message))

    def check(self) -> None:
        os.write(self.let_go, b"x")
        os.close(self.let_go)
        said = os.read(self.verdict, 10)
        os.close(self.verdict)
        assert said == b"intact", "an heir's view shows other data"
        super().check()


@scenario
class RecoverHeirs(SweepHeirs):
    """The same, found by recovery."""

    puts = [b"x"]

    def __init__(self) -> None:
        super().__init__()
        with words(self.queue.segment) as memory:
            memory.owner_died()


# -- locks, conditions, events -------------------------------------------------------------------


class Locks(Scenario):
    kind = "Lock"

    def __init__(self) -> None:
        self.lock = getattr(ctx, self.kind)()

    def victim(self) -> None:
        for _ in range(2):
            with self.lock:
                pass

    def check(self) -> None:
        """Whoever asks gets it, one at a time."""
        total = ctx.RawValue("i", 0)
        others = [ctx.Process(target=self.add, args=(total,)) for _ in range(2)]
        for other in others:
            other.start()
        self.add(total)
        for other in others:
            other.join(SOON)
            assert other.exitcode == 0
        assert total.value == 3 * 200, total.value

    def add(self, total: Any) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        for _ in range(200):
            assert self.lock.acquire(timeout=SOON), "the lock is lost"
            total.value += 1
            self.lock.release()


@scenario
class UseLock(Locks):
    pass


@scenario
class UseRLock(Locks):
    kind = "RLock"


@scenario
class WaitForLock(Locks):
    def __init__(self) -> None:
        super().__init__()
        self.lock.acquire()

    def beside(self) -> None:
        time.sleep(0.03)
        self.lock.release()


@scenario
class LeaveToSleeper(Locks):
    """A thread here sleeps until the victim releases."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = ctx.Semaphore(0)

    def victim(self) -> None:
        self.lock.acquire()
        self.taken.release()
        time.sleep(0.05)
        self.lock.release()

    def beside(self) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        self.taken.acquire(timeout=0.3)
        assert self.lock.acquire(timeout=SOON), "the lock is lost"
        self.lock.release()


@scenario
class Inherit(Locks):
    def __init__(self) -> None:
        super().__init__()
        another_killed(self.lock.acquire)

    def victim(self) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        super().victim()


@scenario
class UseSemaphore(Scenario):
    """A unit that the victim had in its hands is lost, and no other."""

    def __init__(self) -> None:
        self.semaphore = ctx.Semaphore(3)

    def victim(self) -> None:
        with self.semaphore, self.semaphore:
            pass

    def check(self) -> None:
        assert self.semaphore.get_value() in (1, 2, 3)
        for _ in range(self.semaphore.get_value()):
            assert self.semaphore.acquire(timeout=SOON)
        assert not self.semaphore.acquire(False)
        self.semaphore.release()
        assert self.semaphore.acquire(timeout=SOON)


class Undo(Scenario):
    """Three units, and all of them come back whoever is killed."""

    def __init__(self) -> None:
        self.semaphore = ctx.Semaphore(3, undo=True)

    def victim(self) -> None:
        with self.semaphore, self.semaphore:
            pass

    def check(self) -> None:
        for _ in range(2):
            for _ in range(3):
                assert self.semaphore.acquire(timeout=SOON), "a unit is lost"
            assert not self.semaphore.acquire(timeout=0.02), "a unit too many"
            for _ in range(3):
                self.semaphore.release()


@scenario
class UseUndo(Undo):
    pass


@scenario
class WaitForUndo(Undo):
    def __init__(self) -> None:
        super().__init__()
        for _ in range(3):
            self.semaphore.acquire()

    def beside(self) -> None:
        time.sleep(0.03)
        for _ in range(3):
            self.semaphore.release()


@scenario
class UndoForSleeper(Undo):
    """A thread here sleeps until the victim gives."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = ctx.Event()

    def victim(self) -> None:
        for _ in range(3):
            self.semaphore.acquire()
        self.taken.set()
        time.sleep(0.03)
        for _ in range(3):
            self.semaphore.release()

    def beside(self) -> None:
        self.taken.wait(0.3)
        assert self.semaphore.acquire(timeout=SOON), "a unit is lost"
        self.semaphore.release()


@scenario
class UndoForNobody(Undo):
    """Who slept has given up."""

    def victim(self) -> None:
        for _ in range(3):
            self.semaphore.acquire()
        self.semaphore.acquire(timeout=0.01)
        for _ in range(3):
            self.semaphore.release()


@scenario
class AdoptUndo(Undo):
    """One unit is nobody's, unless the victim has adopted it."""

    def __init__(self) -> None:
        super().__init__()
        self.semaphore.acquire()
        self.semaphore._disown()

    def victim(self) -> None:
        self.semaphore._adopt()
        self.semaphore.release()

    def check(self) -> None:
        units = 0
        while self.semaphore.acquire(timeout=0.3):
            units += 1
        if units == 2:
            self.semaphore._adopt()
            units += 1
        for _ in range(units):
            self.semaphore.release()
        super().check()


class UndoOfDead(Undo):
    """Another died at `where`; the victim is who finds it."""

    where: str | None = None
    passage = 1

    def __init__(self) -> None:
        super().__init__()
        another_killed(self.act, self.where, self.passage)

    def act(self) -> None:
        super().victim()

    def victim(self) -> None:
        for _ in range(3):
            self.semaphore.acquire()
        for _ in range(3):
            self.semaphore.release()


@scenario
class UndoHeldByDead(UndoOfDead):
    def act(self) -> None:
        for _ in range(3):
            self.semaphore.acquire()


@scenario
class UndoTakeOfDead(UndoOfDead):
    where = "undo: logged"


@scenario
class UndoGiveOfDead(UndoOfDead):
    where = "undo: slot written"
    passage = 3


class Conditions(Scenario):
    waiters = 0

    def __init__(self) -> None:
        self.condition = ctx.Condition()
        self.woken: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []

    def wait(self) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        with self.condition:
            self.woken.put(self.condition.wait(SOON))

    def start_waiters(self, count: int) -> None:
        present = self.condition._waiters()
        self.threads = [threading.Thread(target=self.wait) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        while self.condition._waiters() < present + count:
            time.sleep(0.001)

    def check(self) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        while any(thread.is_alive() for thread in self.threads):
            with self.condition:
                self.condition.notify_all()
            time.sleep(0.001)
        self.start_waiters(3)
        for left in (2, 1, 0):
            with self.condition:
                self.condition.notify()
            assert self.woken.get(timeout=SOON) or left >= 0
        for thread in self.threads:
            thread.join(SOON)
            assert not thread.is_alive(), "a waiter was not woken"


@scenario
class WaitForNotification(Conditions):
    def victim(self) -> None:
        with self.condition:
            self.condition.wait(SOON)

    def beside(self) -> None:
        warnings.simplefilter("ignore", mpipc.OwnerDiedWarning)
        time.sleep(0.03)
        with self.condition:
            self.condition.notify()


@scenario
class WaitForNotificationInVain(Conditions):
    def victim(self) -> None:
        with self.condition:
            self.condition.wait(0.01)


class NotifyOthers(Conditions):
    count = 2

    def __init__(self) -> None:
        super().__init__()
        self.start_waiters(self.count)

    def victim(self) -> None:
        with self.condition:
            self.condition.notify_all()


@scenario
class Notify(NotifyOthers):
    pass


@scenario
class NotifyCrowd(NotifyOthers):
    count = 66


@scenario
class WaitInCrowd(Conditions):
    def __init__(self) -> None:
        super().__init__()
        self.start_waiters(62)

    def victim(self) -> None:
        with self.condition:
            self.condition.wait(0.01)


@scenario
class NotifyDead(Conditions):
    def __init__(self) -> None:
        super().__init__()
        waiter = ctx.Process(target=self.wait)
        waiter.start()
        while not self.condition._waiters():
            time.sleep(0.001)
        waiter.kill()
        waiter.join()
        self.start_waiters(1)

    def victim(self) -> None:
        with self.condition:
            self.condition.notify()


class Events(Scenario):
    def __init__(self) -> None:
        self.event = ctx.Event()

    def check(self) -> None:
        self.event.clear()
        assert not self.event.wait(0.01)
        waiter = threading.Thread(target=self.event.wait)
        waiter.start()
        self.event.set()
        waiter.join(SOON)
        assert not waiter.is_alive() and self.event.is_set()


@scenario
class SetEvent(Events):
    def victim(self) -> None:
        self.event.set()
        self.event.clear()
        self.event.set()

    def beside(self) -> None:
        threading.Thread(target=self.event.wait, args=(0.5,)).start()


@scenario
class WaitForEvent(Events):
    def victim(self) -> None:
        self.event.wait(SOON)

    def beside(self) -> None:
        time.sleep(0.03)
        self.event.set()


class Barriers(Scenario):
    """Three meet; the victim is the second or the last to come."""

    waiting = 1

    def __init__(self) -> None:
        self.barrier = ctx.Barrier(3, self.act)
        self.outcomes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self.wait) for _ in range(self.waiting)]
        for thread in self.threads:
            thread.start()
        self.wait_for(len(self.threads))

    def wait_for(self, count: int) -> None:
        while self.barrier.n_waiting < count:
            time.sleep(0.001)

    def act(self) -> None:
        """What is done once in each round."""

    def wait(self) -> None:
        try:
            self.barrier.wait(SOON)
        except threading.BrokenBarrierError:
            self.outcomes.put(False)
        else:
            self.outcomes.put(True)

    def victim(self) -> None:
        self.barrier.wait(SOON)

    def beside(self) -> None:
        """The last comes once the victim waits, or is dead."""
        if self.waiting == 1:
            end = time.monotonic() + 0.1
            while self.barrier.n_waiting < 2 and time.monotonic() < end:
                time.sleep(0.001)
            self.threads.append(threading.Thread(target=self.wait))
            self.threads[-1].start()

    def check(self) -> None:
        # Killed before it came in, it is waited for as with stock; now nobody is any more.
        time.sleep(0.3)
        if any(thread.is_alive() for thread in self.threads):
            self.barrier.abort()
        for thread in self.threads:
            thread.join(SOON)
            assert not thread.is_alive(), "a party waits for ever"
        met = {self.outcomes.get() for _ in self.threads}
        assert len(met) <= 1, "some met and some did not"
        self.barrier.reset()
        assert not self.barrier.broken
        for _ in range(3):
            threads = [threading.Thread(target=self.wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            assert all(self.outcomes.get(timeout=SOON) for _ in range(3)), "it does not work again"
            for thread in threads:
                thread.join()


@scenario
class ComeToBarrier(Barriers):
    pass


@scenario
class ComeLastToBarrier(Barriers):
    waiting = 2


@scenario
class ResetBarrier(Barriers):
    waiting = 2

    def victim(self) -> None:
        self.barrier.reset()


@scenario
class MendBarrier(Barriers):
    """Who came first was killed as it did; the victim is the next."""

    waiting = 0

    def __init__(self) -> None:
        super().__init__()
        another_killed(lambda: self.barrier.wait(SOON), "barrier: counted in")

    def victim(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.barrier.wait(SOON)


@scenario
class Work(Scenario):
    """A pool's worker, killed as it takes tasks and answers them; another takes its place."""

    def __init__(self) -> None:
        self.pool = ctx.Pool(1)

    def play(self, index: int, passage: int) -> tuple[int, list[int]]:
        (worker,) = self.pool._pool
        tasks = [bytes(size) for size in (0, 10, 5 * KB, 70 * KB, 1 * KB)]
        armed = self.pool.apply_async(_core.die_at, (index, passage))
        results = [self.pool.apply_async(bytes, (task,)) for task in tasks]
        passed = self.pool.apply_async(_core.kill_points)
        found = [outcome(result, worker.pid) for result in (armed, *results, passed)]
        for task, answer in zip(tasks, found[1:], strict=False):
            assert answer is None or answer[0] == task, "not the answer of that task"
        assert found.count(None) <= 1, "one kill, several tasks lost"
        # It may come that often only later.
        outcome(self.pool.apply_async(_core.die_at, (0, NEVER)), worker.pid)
        worker.join(0.1)
        counts = [count for _, count in found[-1][0]] if found[-1] else []
        return worker.exitcode or 0, counts

    def check(self) -> None:
        assert self.pool.map(abs, range(-20, 0), 1) == list(range(20, 0, -1))
        self.pool.close()
        self.pool.join()


def outcome(result: Any, pid: int) -> tuple[Any] | None:
    """What a task has answered; None if it was lost with the worker of that number."""
    try:
        return (result.get(SOON),)
    except mpipc.WorkerLost as error:
        assert (error.pid, error.exitcode) == (pid, -signal.SIGKILL), error
        return None


# -- the driver ----------------------------------------------------------------------------------


def index_of(what: str) -> int:
    return [label for label, _ in _core.kill_points()].index(what)


@dataclass
class Figures:
    """What was found."""

    points: int
    reached: int = 0
    kills: int = 0
    hangs: int = 0
    failures: list[str] = field(default_factory=list)
    never_reached: list[str] = field(default_factory=list)


def play(make: Callable[[], Scenario], index: int, passage: int) -> tuple[int, list[int]]:
    """Play a scenario; the exit status of the victim, and how often it passed each point."""
    world = make()
    found = world.play(index, passage)
    world.check()
    return found


def passages(count: int) -> Iterator[int]:
    yield from range(1, min(count, PASSAGES) + 1)
    if count > PASSAGES:
        yield count


def run(names: list[str]) -> Figures:
    labels = [label for label, _ in _core.kill_points()]
    figures = Figures(len(labels))
    deaths: Counter[int] = Counter()
    for name in names:
        make = SCENARIOS[name]
        seen = [0] * len(labels)
        for _ in range(2):
            status, passed = watched(
                lambda make=make: play(make, 0, NEVER), f"{name}, nobody killed"
            )
            assert status == 0, f"{name}: the victim ended with {status} though nobody killed it"
            seen = [max(pair) for pair in zip(seen, passed, strict=True)]
        before = sum(deaths.values())
        for index, count in enumerate(seen):
            for passage in passages(count):
                where = f"{name}, killed at {labels[index]!r}, passage {passage}"
                for _ in range(TRIES):
                    try:
                        status, _ = watched(
                            lambda make=make, index=index, passage=passage: play(
                                make, index, passage
                            ),
                            where,
                        )
                    except AssertionError as error:
                        figures.failures.append(f"{where}: {error}")
                        print("FAILED", figures.failures[-1], flush=True)
                        break
                    if status == -signal.SIGKILL:
                        deaths[index] += 1
                        break
        print(f"{name}: {sum(deaths.values()) - before} kills", flush=True)
    figures.kills = sum(deaths.values())
    figures.reached = len(deaths)
    figures.never_reached = [label for i, label in enumerate(labels) if not deaths[i]]
    return figures


def watched(call: Callable[[], tuple[int, list[int]]], what: str) -> tuple[int, list[int]]:
    """Call; a hang shows what hung, with all stacks, and ends the run."""
    faulthandler.dump_traceback_later(3 * SOON, exit=True)
    try:
        return call()
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a process at every marked step of the core.")
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if not _core.kill_points():
        print("this core was built without kill points: MPIPC_KILL_POINTS=1 pip install .")
        return 2
    began = time.monotonic()
    figures = run(options.names or list(SCENARIOS))
    print(f"\npoints: {figures.reached} reached of {figures.points}")
    print(*(f"  never reached: {label}" for label in figures.never_reached), sep="\n")
    print(f"kills: {figures.kills}, all survived but {len(figures.failures)}")
    print(*(f"  {failure}" for failure in figures.failures), sep="\n")
    print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return int(bool(figures.failures) or (not options.names and bool(figures.never_reached)))


if __name__ == "__main__":
    sys.exit(main())
