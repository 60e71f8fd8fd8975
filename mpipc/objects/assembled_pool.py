"""The pool over queues that are assembled from a mechanism's parts.

Such a queue does not tell who takes what. So each task travels with its number, and a worker that
is about to take one claims the next number, then notes the real one. Of a worker that was killed in
between nobody knows whether it had taken its task: that counts as lost, and if it had not, another
worker does it for nothing.

A byte stream that a kill cut in the middle of a message cannot be read on. The pool is broken then:
whatever has no answer raises OwnerDied, and so does what is asked of it later; its workers are
ended, and nothing waits for them.

What this process itself answers does not travel, for the queue of answers may be full, or cut.
"""

from __future__ import annotations

import os
import select
from collections import deque
from functools import cached_property
from multiprocessing.reduction import ForkingPickler

from ..errors import OwnerDied
from . import pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Pool"]

NUMBER = 8  # bytes before a task
# In the word of a worker: it may have taken the task of that number, or not yet.
CLAIMED = 1 << 32
# Words that all workers share: the number that was taken last, and who died in a message.
TAKEN, CUT_BY = range(2)


class Pool(pool.Pool):
    """Stock's pool, in which the task of a worker that was killed raises ``WorkerLost``.

    Its task and result queues are the context's ``SimpleQueue``. Where that is a byte stream, a
    kill in the middle of a message breaks the pool: all its tasks raise ``OwnerDied``.
    """

    def _workers(self, ctx: Any, inqueue: Any, outqueue: Any) -> Workers:
        return Workers(ctx, inqueue, outqueue)


class Workers(pool.Workers):
    """What stock keeps as its list of workers; knows who has which task, and answers for the dead.

    In a broken pool, those who end are replaced by nobody.
    """

    def _connect(self, inqueue: Any, outqueue: Any) -> None:
        self._tasks, self._results = inqueue, outqueue
        self.inqueue, self.outqueue = _Tasks(inqueue), _Answers()
        self._shared = self._ctx.RawArray("Q", 2)
        self._doubtful = 0, 0  # a number, and how many of those who claimed it were killed
        self._broken = 0  # who died in the middle of a message
        reader = outqueue._reader
        self._recv_bytes = getattr(reader, "try_recv_bytes", reader.recv_bytes)

    @cached_property
    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._results._reader, select.POLLIN)
        poller.register(self.outqueue, select.POLLIN)
        return poller

    def _ends(self, word: Any) -> tuple[Any, Any]:
        return _Inbox(self._tasks, word, self._shared), _Outbox(self._results, word, self._shared)

    def create(self, new: Callable[..., Any], ctx: Any, *, args: Any, **kwds: Any) -> Any:
        """Make a worker's process."""
        return _Nobody() if self._broken else super().create(new, ctx, args=args, **kwds)

    def append(self, worker: Any) -> None:
        """Add a worker, which has been started."""
        super().append(worker)
        if self._broken:
            worker.terminate()

    def _send(self, task: Any) -> None:
        number = self._number % pool.NUMBERS + 1
        self._tasks._writer.send_bytes(
            number.to_bytes(NUMBER, "little") + bytes(ForkingPickler.dumps(task))
        )

    def put(self, task: Any) -> None:
        """Send a task, or None, to whoever takes it; raises OwnerDied once the pool is broken."""
        if not self._broken:
            try:
                super().put(task)
            except OwnerDied as error:
                self._break(error.pid)
                if task is not None:
                    raise
        elif task is not None:
            raise self._error()
        if self._broken:
            self._fail_all()  # the task may have come too late for that

    def _receive(self) -> Any:
        """What workers have sent, and when there is nothing more, what is answered here."""
        while not self._broken:
            ready = {fd for fd, _ in self._poller.poll()}
            if ready == {self.outqueue.fileno()}:
                break
            try:
                answer = self._recv_bytes()
            except OwnerDied as error:
                self._break(error.pid)
            else:
                # Of packets only some may be there, and the others never come.
                if answer is not None:
                    return ForkingPickler.loads(answer)
        return self.outqueue.get()

    def _answer(self, answer: Any) -> None:
        self.outqueue.put(answer)

    def _in_hand(self, word: Any) -> int:
        number: int = word[0]
        if number & CLAIMED:
            number -= CLAIMED
            first, killed = self._doubtful
            killed = killed + 1 if number == first else 1
            self._doubtful = number, killed
            # Each may have taken one: the first this one, the second the next, and so on.
            number = (number + killed - 2) % pool.NUMBERS + 1
        return 0 if any(other[0] == number for other in self._words.values()) else number

    def __delitem__(self, index: Any) -> None:
        if pid := self._shared[CUT_BY]:
            self._break(pid)
        super().__delitem__(index)

    def _break(self, pid: int) -> None:
        """A queue is cut: end everything."""
        self._broken = self._broken or pid
        self._fail_all()
        self._tasks._writer.give_up(pid)  # only streams are ever cut
        for worker in self[:]:
            worker.terminate()

    def _fail_all(self) -> None:
        for job, i in self._sent.copy():
            self._answer((job, i, (False, self._error())))

    def _error(self) -> OwnerDied:
        # A new one each time: what has been raised holds on to all that was running.
        return OwnerDied(
            f"process {self._broken} died in the middle of a message of this pool, and what it "
            "still had to do cannot be told apart any more: make a new pool, or use mpipc-shm",
            self._broken,
        )


class _Nobody:
    """What a broken pool has for a worker: one that never ends, and that nobody waits for."""

    name = ""
    daemon = True
    pid = exitcode = None

    def start(self) -> None:
        """Do nothing, as all others here."""

    terminate = join = is_alive = start


class _Tasks:
    """What stock's threads see of the queue of tasks: a lock, and what waits when all is to end."""

    def __init__(self, queue: Any) -> None:
        self._rlock = queue._rlock
        self._queue = queue
        self._cut = False

    @property
    def _reader(self) -> _Tasks:
        return self

    def poll(self) -> bool:
        """Whether a task waits."""
        return not self._cut and self._queue._reader.poll()

    def recv(self) -> None:
        """Drop it."""
        try:
            self._queue._reader.recv_bytes()
        except OwnerDied:
            self._cut = True


class _Answers:
    """What stock's threads see as the queue of answers: those of this process, and its end."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._count = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._count)

    def fileno(self) -> int:
        """A descriptor that is readable while there are answers."""
        return self._count

    def put(self, answer: Any) -> None:
        """Add an answer."""
        self._waiting.append(answer)
        os.eventfd_write(self._count, 1)

    def get(self) -> Any:
        """Wait for an answer."""
        os.eventfd_read(self._count)
        return self._waiting.popleft()

    @property
    def _reader(self) -> _Answers:
        return self

    def poll(self) -> bool:
        """Whether room must be made for the end to be sent: never."""
        return False


class _Inbox:
    """The queue of tasks in a worker."""

    def __init__(self, queue: Any, word: Any, shared: Any) -> None:
        self._queue = queue
        self._writer = queue._writer
        self._word = word
        self._shared = shared

    def get(self) -> Any:
        """Take a task."""
        reader, word, shared = self._queue._reader, self._word, self._shared
        try:
            with self._queue._rlock:
                reader.poll(None)  # who only waits claims nothing
                word[0] = CLAIMED | shared[TAKEN] % pool.NUMBERS + 1
                message = reader.recv_bytes()
                shared[TAKEN] = word[0] = int.from_bytes(message[:NUMBER], "little")
        except OwnerDied as error:
            raise _end(shared, error) from None
        return ForkingPickler.loads(memoryview(message)[NUMBER:])


class _Outbox(pool.Outbox):
    """The queue of answers in a worker."""

    def __init__(self, queue: Any, word: Any, shared: Any) -> None:
        super().__init__(queue, word)
        self._shared = shared

    def put(self, answer: Any) -> None:
        """Send an answer."""
        try:
            super().put(answer)
        except OwnerDied as error:
            raise _end(self._shared, error) from None


def _end(shared: Any, error: OwnerDied) -> SystemExit:
    """What ends a worker that has found a queue cut, and is told to its parent so."""
    shared[CUT_BY] = error.pid
    return SystemExit()
