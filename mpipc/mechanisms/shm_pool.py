"""The pool over shared memory: no thread stands between a caller and the workers.

Stock hands a task from the caller to a thread, from that to a worker, from there to another thread,
and from that to the caller. Here who submits a task puts it into the queue himself, as long as
there is room, and one of those who wait for results receives, for all of them. Stock's two threads
remain for the rest: the one draws from iterables that may run code of the program, the other calls
callbacks, and receives while nobody waits.

A signal handler that raises may end any wait. So what a thread does for others is either one call
of the core or can be begun again: an answer stays in ``_received`` until it is delivered, and to
deliver it twice does what once does.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import count, repeat, starmap
from multiprocessing import TimeoutError, util
from multiprocessing import pool as stock_pool
from operator import getitem
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic

from .. import _core
from .._context import max_bytes
from ..objects import pool
from ..objects.functions import Known, Names
from . import shm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.context import BaseContext
    from typing import Any

__all__ = ["Pool"]

# So many tasks wait for workers at most; more are sent as answers come.
TASKS_AHEAD = 1000
# Bytes of tasks, and of answers, that wait at most.
CAPACITY = 8 << 20
# So many answers are taken from the queue at once.
ANSWERS = 64
# Seconds after which the handler receives in the place of a thread that has not come back.
LATE = 0.002
# Iterables that run no code of the program: any thread may draw from them.
PLAIN = {list, tuple, range, str, bytes}
WAKE = object()

stock: Any = stock_pool  # most of it has no types


class Pool(pool.Pool):
    """Stock's pool, in which the task of a worker that was killed raises ``WorkerLost``."""

    _cache: Any
    _change_notifier: Any
    _check_running: Any
    _ctx: Any
    _get_tasks: Any
    _guarded_task_generation: Any
    _pool: _Exchange
    _state: str
    _taskqueue: Any

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self._pool.begin(self._cache, self._taskqueue, self._change_notifier)

    def _workers(self, ctx: Any, *_: Any) -> _Exchange:
        return _Exchange(ctx, _Queue(ctx=ctx), _Queue(ctx=ctx))

    def _get_sentinels(self) -> list[Any]:
        # Without the results: a worker that ends has a sentinel of its own.
        return [self._change_notifier._reader]

    def apply_async(
        self,
        func: Any,
        args: Any = (),
        kwds: Any = {},  # noqa: B006 - as in stock
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        """Asynchronous version of `apply()` method."""
        self._check_running()
        result = ApplyResult(self, callback, error_callback)
        result.function = func
        task = self._pool.message(result._job, 0, func, args, kwds)
        self._pool.submit(result, iter((task,)))
        return result

    def _map_async(
        self,
        func: Any,
        iterable: Any,
        mapper: Any,
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        if chunksize is None:
            chunksize, extra = divmod(length, len(self._pool) * 4)
            chunksize += bool(extra)
        if length == 0:
            chunksize = 0
        result = MapResult(self, chunksize, length, callback, error_callback)
        if chunksize == 1 and mapper is stock.mapstar and type(iterable) in PLAIN:
            result.single = True
            self._pool.submit(result, self._pool.messages(result, func, iterable))
        elif chunksize > 0:
            self._submit_chunks(result, func, iterable, mapper, chunksize)
        return result

    def imap(self, func: Any, iterable: Any, chunksize: Any = 1) -> Any:
        """Equivalent of `map()` -- can be MUCH slower than `Pool.map()`."""
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func: Any, iterable: Any, chunksize: Any = 1) -> Any:
        """Like `imap()` method but ordering of results is arbitrary."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _imap(self, kind: type, func: Any, iterable: Any, chunksize: int) -> Any:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        result = kind(self)
        if chunksize > 1:
            self._submit_chunks(result, func, iterable, stock.mapstar, chunksize)
            return (item for chunk in result for item in chunk)
        if type(iterable) in PLAIN:
            self._pool.submit(result, self._pool.messages(result, func, iterable))
        else:
            self._submit_drawn(result, func, iterable)
        return result

    def _submit_chunks(self, result: Any, func: Any, iterable: Any, mapper: Any, size: int) -> None:
        if type(iterable) in PLAIN:
            ends = range(size, len(iterable) + size, size)
            slices = map(slice, range(0, len(iterable), size), ends)
            chunks = map(getitem, repeat(iterable), slices)
            self._pool.submit(result, self._pool.messages(result, func, chunks, mapper))
        else:
            result.function = func
            self._submit_drawn(result, mapper, Pool._get_tasks(func, iterable, size))

    def _submit_drawn(self, result: Any, func: Any, iterable: Any) -> None:
        """Have a thread of its own draw the arguments from an iterable."""
        result.function = result.function or func
        tasks = self._guarded_task_generation(result._job, func, iterable)
        self._pool.submit(result, self._pool.draw(result, tasks), drawn=True)

    def close(self) -> None:
        """Take no more tasks; workers end when all is done."""
        # First, so that the end of the last job is not missed.
        if self._state == stock.RUN:
            self._pool.close()
        super().close()

    @classmethod
    def _terminate_pool(
        cls, taskqueue: Any, inqueue: Any, outqueue: Any, pool: Any, *rest: Any
    ) -> None:
        pool.close(at_once=True)
        super()._terminate_pool(  # type: ignore[misc]
            taskqueue, inqueue, outqueue, pool, *rest
        )

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Make room for the thread that sends tasks. Workers take them too, and without a lock."""
        while task_handler.is_alive() and inqueue._take_some([], 1, 0):
            pass


class _Queue(shm.SimpleQueue):
    """Of tasks or answers. Large ones shall not have to wait for each other."""

    def _open(self, ctx: BaseContext, **extras: bool) -> None:
        limit = max_bytes(ctx)
        capacity = shm.PIPE_CAPACITY if limit else CAPACITY
        self._attach(*_core.open_queue(shm.Connection, 0, capacity, limit, **extras))


# Whose turn it is, under the key None. A lock could be left locked by a signal handler that raises
# between the locking and the block that unlocks; who has the turn is seen from this.
Turn = dict[None, object]


class _Exchange(pool.Workers):
    """Tasks to the workers, and answers to whoever waits for results.

    `_leading` is held by the thread that receives. Others that wait are `_followers`; one of them
    is called when that thread has what it waited for. If there are none, the handler of results,
    which looks after its `_mail` otherwise, receives when nobody else has for a moment; at once if
    callbacks are due, and always when the pool is closed.
    """

    def __init__(self, ctx: Any, inqueue: Any, outqueue: Any) -> None:
        super().__init__(ctx, inqueue, outqueue)
        self._cache: dict[int, Any] = {}
        self._pending: deque[tuple[Any, Any, bool]] = deque()
        self._feeding: Turn = {}
        self._drawing = False  # the thread for that is at work, and puts what it draws
        self._full = False
        self._leading: Turn = {}
        self._followers: dict[SimpleQueue[None], None] = {}
        self._received: list[Any] = []
        self._times_received = 0
        self._mail: SimpleQueue[Any] = SimpleQueue()
        self._asleep = False
        self._late = False
        self._closed = False
        self._ended = False
        self._names = Names()
        self.called: dict[int, None] = {}  # jobs with callbacks, which the handler calls

    def begin(self, cache: Any, taskqueue: Any, notifier: Any) -> None:
        """Take up the pool's parts, once it is made."""
        self._notifier = notifier
        self._taskqueue = taskqueue
        self._cache = cache

    def close(self, at_once: bool = False) -> None:
        """Have the handler receive all that is still to come."""
        self._ended |= at_once
        self._closed = True
        self._mail.put(WAKE)

    def forget(self, job: int) -> None:
        """A job is done."""
        self.called.pop(job, None)
        self._cache.pop(job, None)
        # The handler of workers waits for the last job, but only of a closed pool.
        if self._closed and not self._cache:
            self._notifier.put(None)

    # -- tasks ---------------------------------------------------------------------------------

    def message(self, job: int, i: int, func: Any, args: Any, kwds: Any) -> tuple[Any, ...]:
        """What is sent of a task: stock's tuple, or one of four with the function pickled."""
        if func is stock.mapstar or func is stock.starmapstar:
            name = self._names.pickled(args[0][0], MAPPERS[func])
            if name:
                return job, i, name, args[0][1:]
        elif not kwds:
            name = self._names.pickled(func)
            if name:
                return job, i, name, args
        return job, i, func, args, kwds

    def messages(
        self, result: Any, func: Any, items: Iterable[Any], mapper: Any = None
    ) -> Iterator[tuple[Any, ...]]:
        """The same for many tasks, one for each of `items`; runs no Python code."""
        result.function = func
        job = repeat(result._job)
        name = self._names.pickled(func, MAPPERS.get(mapper))
        if name:
            return zip(job, count(), repeat(name), zip(items))
        if mapper is None:
            return zip(job, count(), repeat(func), zip(items), repeat({}))
        args = zip(zip(repeat(func), items))
        return zip(job, count(), repeat(mapper), args, repeat({}))

    def submit(self, result: Any, messages: Any, drawn: bool = False) -> None:
        """Send tasks, once those submitted before are sent."""
        entry = result, messages, drawn
        # All or nothing: a signal handler runs after a call, and the first is the last of these.
        if result._event.called:
            self.called[result._job] = None
        self._cache[result._job] = result
        self._pending.append(entry)
        self.feed()
        self._appoint()

    def feed(self) -> None:
        """Send what there is room for."""
        while self._pending and not (self._full or self._drawing or self._ended or self._feeding):
            me = object()
            try:
                if self._feeding.setdefault(None, me) is me:
                    self._feed_first()
            except BaseException:
                self._full = False
                raise
            finally:
                if self._feeding and self._feeding[None] is me:
                    del self._feeding[None]

    def _feed_first(self) -> None:
        if not self._pending:
            return
        result, messages, drawn = self._pending[0]
        if drawn:
            self._drawing = True
            del self._pending[0]
            self._taskqueue.put((messages, None))
            return
        # Said before it is found: an answer that comes meanwhile says the contrary.
        self._full = True
        outcome = self.inqueue._put_some(messages, result.sent, TASKS_AHEAD)
        if isinstance(outcome, Exception):
            i = self.inqueue._held()[1]
            result.sent[i] = 0
            self._tell(result, i, (False, outcome))
            self.inqueue._drop()
            self._full = False
        elif outcome:
            self._full = False
            self._all_sent(result)
            del self._pending[0]

    def draw(self, result: Any, tasks: Iterator[Any]) -> Iterator[Any]:
        """The tasks of an iterable, for the thread that draws from it."""
        try:
            yield from tasks
        finally:
            self._drawing = False
            self._all_sent(result)
            self.feed()

    def put(self, task: Any) -> None:
        """Send a task that was drawn, or None; waits for room."""
        if task is None:
            self._send(None)
            return
        job, i = task[:2]
        result = self._cache[job]
        result.sent[i] = self.inqueue._next_number()
        try:
            self._send(self.message(*task))
        except Exception as error:
            self._tell(result, i, (False, error))

    def _all_sent(self, result: Any) -> None:
        result.all_sent = True
        if not result.sent:
            self._tell(result, None, None)

    def _tell(self, result: Any, i: int | None, answer: Any) -> None:
        """Answer a task that no worker has."""
        if result._job in self.called:
            self._mail.put((result._job, i, answer))
        else:
            result._set(i, answer)
        if self._leading:  # by a thread that may be waiting for just this
            self.outqueue._put_some(iter((pool.NO_ANSWER,)), {}, 1)

    # -- answers -------------------------------------------------------------------------------

    def wait(self, flag: Flag, seen: int, timeout: float | None) -> bool:
        """Wait until the flag was set once more; receive, unless another thread does."""
        deadline = None if timeout is None else monotonic() + timeout
        me = object()
        try:
            self.feed()  # what another left undone
            while flag.count == seen:
                if self._closed or flag.called or self._leading:
                    self._follow(flag, seen, deadline)
                elif self._leading.setdefault(None, me) is me:
                    try:
                        self._lead(flag, seen, deadline)
                    finally:
                        del self._leading[None]
                if deadline is not None and monotonic() >= deadline:
                    break
        finally:
            if self._leading and self._leading[None] is me:
                del self._leading[None]
            self._appoint()
        return flag.count != seen

    def _lead(self, flag: Flag, seen: int, deadline: float | None) -> None:
        """Deliver what comes until the flag is set, or the time is over."""
        while flag.count == seen and not self._closed:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            if not self._receive_some(left):
                return

    def _receive_some(self, timeout: float | None) -> bool:
        """Deliver what is there, or comes in time; send what there is room for then."""
        received = self._received
        if not received:
            if not self.outqueue._take_some(received, ANSWERS, timeout):
                return False
            self._times_received += 1
        while received:
            self._deliver(received[0])
            del received[0]
        if self._unsent:
            self._send_answers()
        self._full = False
        self.feed()
        return True

    def _deliver(self, answer: Any) -> None:
        if answer is None or answer[0] in self.called:
            self._mail.put(answer)
        elif answer[0] in self._cache:
            job, i, value = answer
            self._cache[job]._set(i, value)

    def _follow(self, flag: Flag, seen: int, deadline: float | None) -> None:
        """Wait until the flag is set, it is this thread's turn to receive, or the time is over."""
        call: SimpleQueue[None] = SimpleQueue()
        try:
            flag.calls.append(call)
            if not flag.called:
                self._followers[call] = None
            if flag.count == seen and (self._closed or flag.called or self._leading):
                call.get(timeout=None if deadline is None else max(0.0, deadline - monotonic()))
        except Empty:
            return  # the time is over
        finally:
            if call in self._followers:
                del self._followers[call]
            flag.calls.remove(call)

    def _appoint(self) -> None:
        """See that somebody receives, if there is anything to wait for."""
        if self._leading or not (self._cache or self._closed):
            return  # whoever leads does this when he leaves
        if self._followers and not self._closed:
            for follower in list(self._followers)[:1]:
                follower.put(None)
                self._followers.pop(follower, None)
                return
        if self._asleep or self.called or self._closed:
            self._mail.put(WAKE)

    def get(self) -> Any:
        """What the handler of results is to deliver next; None at the end."""
        while True:
            if not self._mail.empty():
                item = self._mail.get()
                if item is not WAKE:
                    return item
            elif (self._late or self._closed or self.called) and self._leading.setdefault(
                None, self
            ) is self:
                # What others may lead for is delivered before they can.
                try:
                    self._receive_some(None)
                finally:
                    del self._leading[None]
                self._late = self._late and bool(self._cache) and not self._followers
                if self._followers:
                    self._appoint()
                if self._closed and self._mail.empty():
                    return pool.NO_ANSWER  # stock may look for no more
            else:
                self._sleep()

    def _sleep(self) -> None:
        """Until there is mail, or the threads that wait for results are late to receive."""
        # In this order: whoever leaves the lead looks who is asleep.
        self._asleep = True
        before = self._times_received
        due = (self._cache or self._closed) and not self._leading
        if due:
            self._asleep = False
        try:
            self._mail.put(self._mail.get(timeout=LATE if due else None))
        except Empty:
            self._late = self._times_received == before and not self._leading
        self._asleep = False

    # -- workers -------------------------------------------------------------------------------

    def create(self, new: Any, ctx: Any, *, args: Any, **kwds: Any) -> Any:
        """Make a worker's process."""
        if kwds.get("target") is stock.worker:
            kwds["target"] = work
        return super().create(new, ctx, args=args, **kwds)

    def _tasks_of(self, number: int) -> Iterator[tuple[int, int, Any]]:
        # Copies: a list of items is not made in one go, other threads may run between.
        for job, result in self._cache.copy().items():
            for i, sent in result.sent.copy().items():
                if sent == number:
                    yield job, i, result.function


class Flag:
    """Stands for the event of a result; a thread that waits for it receives.

    It does not if it waits for callbacks: the handler sets the flag, when it has called them.
    """

    __slots__ = ("_exchange", "called", "calls", "count")

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self.called = False
        self.count = 0
        self.calls: list[SimpleQueue[None]] = []

    def is_set(self) -> bool:
        return self.count != 0

    def set(self) -> None:
        self.count += 1
        for call in self.calls[:]:
            call.put(None)

    def wait(self, timeout: float | None = None, seen: int = 0) -> bool:
        return self.count != seen or self._exchange.wait(self, seen, timeout)


class Answers:
    """What the kinds of results have in common.

    Attributes
    ----------
    sent : dict
        The numbers of the tasks that are sent and not answered, by their index.
    all_sent : bool
        Whether no more tasks will be.
    function : callable
        What the tasks call.
    """

    _job: int

    def _begin(self, pool: Any) -> None:
        self._pool = pool
        self._job = next(stock.job_counter)
        self._cache = pool._cache
        self._exchange: _Exchange = pool._pool
        self._event = Flag(self._exchange)
        self.sent: dict[int, int] = {}
        self.all_sent = False
        self.function: Any = None

    def _set(self, i: int, answer: Any) -> None:
        """Take an answer, or see that all are there; done again it changes nothing."""
        if i in self.sent:
            self._store(i, answer)
        if self.all_sent and not self.sent and self._job in self._cache:
            self._finish()

    def _store(self, i: int, answer: Any) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        self._event.set()
        self._exchange.forget(self._job)
        self._pool = None


class ApplyResult(Answers, stock_pool.ApplyResult):  # type: ignore[type-arg]
    """What ``apply_async`` returns."""

    def __init__(self, pool: Any, callback: Any, error_callback: Any) -> None:
        self._begin(pool)
        self._callback = callback
        self._error_callback = error_callback
        self._success = True
        if callback or error_callback:
            self._event.called = True

    def _store(self, i: int, answer: Any) -> None:
        self._success, self._value = answer
        del self.sent[i]

    def _finish(self) -> None:
        callback = self._callback if self._success else self._error_callback
        if callback:
            callback(self._value)
        super()._finish()


class MapResult(ApplyResult, stock_pool.MapResult):  # type: ignore[type-arg]
    """What ``map_async`` returns; `single` if its answers are values and not lists of them."""

    single = False

    def __init__(
        self, pool: Any, chunksize: int, length: int, callback: Any, error_callback: Any
    ) -> None:
        super().__init__(pool, callback, error_callback)
        self._value: Any = [None] * length
        self._chunksize = chunksize
        if chunksize <= 0:
            Answers._finish(self)

    def _store(self, i: int, answer: Any) -> None:
        success, value = answer
        if self._success:
            if success and self.single:
                self._value[i] = value
            elif success:
                self._value[i * self._chunksize : (i + 1) * self._chunksize] = value
            else:  # the first error counts
                self._success = False
                self._value = value
        del self.sent[i]


class IMapIterator(Answers, stock_pool.IMapIterator):  # type: ignore[type-arg]
    """What ``imap`` returns."""

    def __init__(self, pool: Any) -> None:
        self._begin(pool)
        self._guard = Lock()
        self._index = 0
        self._items: Any = {}
        self._over = False

    def next(self, timeout: float | None = None) -> Any:
        """The next result; TimeoutError if there is none in time."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            # Both before looking for items: what comes later is seen then.
            seen, over = self._event.count, self._over
            with self._guard:
                item = self._next_item()
            if item is not None:
                break
            if over:
                raise StopIteration
            left = None if deadline is None else deadline - monotonic()
            if not self._event.wait(left, seen):
                raise TimeoutError
        success, value = item
        if success:
            return value
        raise value

    __next__ = next

    def _next_item(self) -> Any:
        item = self._items.pop(self._index, None)
        if item is not None:
            self._index += 1
        return item

    def _set(self, i: int, answer: Any) -> None:
        super()._set(i, answer)
        self._event.set()

    def _store(self, i: int, answer: Any) -> None:
        self._items[i] = answer
        del self.sent[i]

    def _finish(self) -> None:
        self._over = True
        super()._finish()


class IMapUnorderedIterator(IMapIterator):
    """What ``imap_unordered`` returns."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._items = deque()

    def _next_item(self) -> Any:
        return self._items.popleft() if self._items else None

    def _store(self, i: int, answer: Any) -> None:
        # No call in here: a signal handler may run after each, and the item would come twice.
        self._items += (answer,)
        del self.sent[i]


# -- in the workers --------------------------------------------------------------------------------


def call_each(func: Any, chunk: Any) -> list[Any]:
    """The task of a map."""
    return list(map(func, chunk))


def call_each_starred(func: Any, chunk: Any) -> list[Any]:
    """The task of a starmap."""
    return list(starmap(func, chunk))


MAPPERS = {
    stock.mapstar: partial(partial, call_each),
    stock.starmapstar: partial(partial, call_each_starred),
}


def work(
    inbox: Any,
    outbox: Any,
    initializer: Any = None,
    initargs: Any = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """What stock's ``worker`` does, with functions that are unpickled once."""
    get, put, word = inbox.get, outbox._queue.put, outbox._word
    inbox._writer.close()
    outbox._reader.close()
    if initializer is not None:
        initializer(*initargs)
    functions = Known()
    completed = 0
    while completed != maxtasks:
        try:
            task = get()
        except (EOFError, OSError):
            util.debug("worker got EOFError or OSError -- exiting")
            break
        if task is None:
            util.debug("worker got sentinel -- exiting")
            break
        kwds: Any = {}
        func = None
        try:
            if len(task) == 4:
                job, i, name, args = task
                func = functions[name]
            else:
                job, i, func, args, kwds = task
            answer: Any = (True, func(*args, **kwds))
        except Exception as error:
            if wrap_exception and func is not stock._helper_reraises_exception:
                error = stock.ExceptionWithTraceback(error, error.__traceback__)
            answer = False, error
        try:
            put((job, i, answer))
        except Exception as error:
            wrapped = stock.MaybeEncodingError(error, answer[1])
            util.debug(f"Possible encoding error while sending result: {wrapped}")
            put((job, i, (False, wrapped)))
        word[0] = 0
        task = job = answer = func = args = kwds = None
        completed += 1
    util.debug(f"worker exiting after {completed} tasks")
