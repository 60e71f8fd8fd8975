"""The pool: stock's, which fails the task of a killed worker instead of waiting for it.

Each worker has a word in shared memory with the number of the task that it has in hand: written
before the task leaves the queue, cleared once the result is in the other. The parent numbers tasks
in the order in which it puts them. When a worker has ended with a number in its word, that task is
answered with :class:`WorkerLost`, behind whatever the worker had still sent; only the first answer
counts. (The pool of the other mechanisms is in :mod:`.assembled_pool`.)
"""

from __future__ import annotations

import signal
from collections import deque
from functools import partial
from multiprocessing.pool import mapstar, starmapstar  # type: ignore[attr-defined]

from .. import _stock
from .._replacement import Replacement
from ..errors import WorkerLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["NUMBERS", "Outbox", "Pool", "Workers"]

NUMBERS = 1 << 28
# An answer to no job; stock drops it.
NO_ANSWER = None, None, None


class Pool(_stock.Pool, metaclass=Replacement):
    """Stock's pool, in which the task of a worker that was killed raises ``WorkerLost``.

    Its task and result queues are the context's ``SimpleQueue``.
    """

    if TYPE_CHECKING:  # stock's, which typeshed does not know
        _ctx: Any
        _inqueue: Any
        _outqueue: Any

    def _setup_queues(self) -> None:
        super()._setup_queues()  # type: ignore[misc]
        workers = self._workers(self._ctx, self._inqueue, self._outqueue)
        self._inqueue, self._outqueue = workers.inqueue, workers.outqueue
        self._pool = workers
        self._quick_put, self._quick_get = workers.put, workers.get
        # Not a method: the threads of a pool must not keep it alive.
        self.Process = partial(workers.create, self.Process)  # type: ignore[method-assign]

    def _workers(self, ctx: Any, inqueue: Any, outqueue: Any) -> Workers:
        return Workers(ctx, inqueue, outqueue)


class Workers(list["Any"]):
    """What stock keeps as its list of workers; an ended one leaves it. Knows who has which task.

    This one does so by the core's queues, and no kill is too quick for it.
    """

    def __init__(self, ctx: Any, inqueue: Any, outqueue: Any) -> None:
        super().__init__()
        self._ctx = ctx
        self._connect(inqueue, outqueue)
        self._number = 0
        self._sent: dict[tuple[int, int], tuple[int, Callable[..., Any]]] = {}
        self._unsent: deque[Any] = deque()
        self._words: dict[Any, Any] = {}
        self._free_words: list[Any] = []

    def _connect(self, inqueue: Any, outqueue: Any) -> None:
        """Take up the queues; `inqueue` and `outqueue` are what the pool's threads see of them."""
        self.inqueue, self.outqueue = inqueue, outqueue
        self._send = inqueue._writer.send
        self._receive = outqueue._reader.recv

    def put(self, task: Any) -> None:
        """Send a task, or None, to whoever takes it."""
        number = self._number % NUMBERS + 1
        if task is not None:
            job, i, func, args, _ = task
            if func is mapstar or func is starmapstar:
                func = args[0][0]
            self._sent[job, i] = number, func
        try:
            self._send(task)
        except BaseException:
            # Unless somebody has already answered it.
            if task is None or self._sent.pop((job, i), None) is not None:
                raise
        self._number = number

    def get(self) -> Any:
        """Receive an answer; of two to the same task only the first is one."""
        answer = self._receive()
        if self._unsent:
            self._send_answers()
        if answer is not None and self._sent.pop(answer[:2], None) is None:
            return NO_ANSWER
        return answer

    def create(self, new: Callable[..., Any], ctx: Any, *, args: Any, **kwds: Any) -> Any:
        """Make a worker's process."""
        word = self._free_words.pop() if self._free_words else self._ctx.RawArray("Q", 1)
        word[0] = 0
        worker = new(ctx, args=(*self._ends(word), *args[2:]), **kwds)
        self._words[worker] = word
        return worker

    def _ends(self, word: Any) -> tuple[Any, Any]:
        """The two queues as a worker with that word is to have them."""
        return _ClaimingInbox(self.inqueue, word), Outbox(self.outqueue, word)

    def _answer(self, answer: Any) -> None:
        """Send an answer behind those that workers have sent, without waiting."""
        self.outqueue._put_at_once(answer)

    def _in_hand(self, word: Any) -> int:
        """The number of the task that an ended worker with that word had in hand, 0 for none."""
        # It may have been killed just before it took it. Whoever else did had noted it before it
        # left the queue, hence the order; if its word is clear again, its answer is sent.
        number: int = word[0]
        if not number or not self.inqueue._has_left(number):
            return 0
        return 0 if any(other[0] == number for other in self._words.values()) else number

    def __delitem__(self, index: Any) -> None:
        worker = self[index]
        super().__delitem__(index)
        word = self._words.pop(worker)
        if number := self._in_hand(word):
            self._fail(worker, number)
        self._free_words.append(word)

    def _fail(self, worker: Any, number: int) -> None:
        """Answer the task that an ended worker had in hand."""
        for job, i, func in self._tasks_of(number):
            name = getattr(func, "__qualname__", None) or repr(func)
            error = WorkerLost(
                f"worker {worker.pid} {ending(worker.exitcode)} while it had {name}() to do; "
                "that task may be half done, the pool goes on without it",
                worker.pid,
                worker.exitcode,
                name,
            )
            self._unsent.append((job, i, (False, error)))
        # The second time because what made no room may all have been received in between.
        self._send_answers()
        self._send_answers()

    def _tasks_of(self, number: int) -> Iterator[tuple[int, int, Any]]:
        """The job, index and function of the task of that number, unless it is answered."""
        # A copy in one step: other threads send and receive meanwhile.
        for (job, i), (sent, func) in self._sent.copy().items():
            if sent == number:
                yield job, i, func

    def _send_answers(self) -> None:
        """Send the answers of ours that are left, those for which there is memory."""
        while True:
            try:
                answer = self._unsent.popleft()
            except IndexError:
                return
            try:
                self._answer(answer)
            except MemoryError:
                self._unsent.appendleft(answer)
                return


class _ClaimingInbox:
    """The task queue in a worker; its core notes the number of a task in the worker's word."""

    def __init__(self, queue: Any, word: Any) -> None:
        self._queue = queue
        self._writer = queue._writer
        self._word = word

    @property
    def get(self) -> Any:
        """The queue's own method: a worker asks for it once, when it begins."""
        self._queue._claim(self._word)
        return self._queue.get


class Outbox:
    """The result queue in a worker."""

    def __init__(self, queue: Any, word: Any) -> None:
        self._queue = queue
        self._reader = queue._reader
        self._word = word

    def put(self, answer: Any) -> None:
        self._queue.put(answer)
        self._word[0] = 0


def ending(exitcode: int) -> str:
    """How a process ended, in words."""
    if exitcode >= 0:
        return f"ended with exit status {exitcode}"
    try:
        return f"was killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was killed by signal {-exitcode}"
