"""``concurrent.futures`` over mpipc: an executor whose manager moves calls and results itself."""

from __future__ import annotations

import multiprocessing.connection
import os
from collections.abc import Callable, Iterator
from concurrent.futures import process
from functools import partial
from queue import Empty, Full, SimpleQueue
from time import monotonic
from traceback import format_exception

from ._registry import get_context
from .objects.functions import Known, Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

stock: Any = process  # half of it has no types

BrokenProcessPool = process.BrokenProcessPool

# Calls that are with the workers cannot be cancelled. As few wait there as stock lets wait; if more
# have come back within this time, as many as that.
SHORT = 0.01
CALLS_AHEAD = 1000
RESULTS = 64


class ProcessPoolExecutor(process.ProcessPoolExecutor):
    """Stock's executor over shared memory.

    Its manager thread sends calls and receives results by itself, many at a time when they are
    short; stock's needs another thread for the calls, and looks for one result at a time. With an
    `mp_context` that is not ``mpipc-shm`` it is stock's executor.

    Parameters
    ----------
    max_workers : int, optional
        How many processes; as many as there are processors if not given.
    mp_context : context, optional
        What processes are started with: ``mpipc-shm`` if not given.
    initializer, initargs : callable and tuple, optional
        Called in each process before its first call.
    max_tasks_per_child : int, optional
        After how many calls a process is replaced. Not with the start method fork; if no
        `mp_context` is given, it is spawn then. From Python 3.11 on.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if mp_context is None:
            spawning = options.get("max_tasks_per_child") is not None
            mp_context = get_context("shm", start_method="spawn" if spawning else None)
        super().__init__(max_workers, mp_context, initializer, initargs, **options)
        parts: Any = self
        self._direct = hasattr(parts._result_queue, "_take_some")
        if self._direct:
            parts._executor_manager_thread_wakeup.close()
            parts._executor_manager_thread_wakeup = _Wakeup()
            parts._call_queue.close()
            parts._call_queue = _Calls(parts._mp_context.SimpleQueue(), parts._max_workers)
            parts._result_queue = _Results(parts._result_queue)
            parts._work_ids = SimpleQueue()  # written in C; nobody asks for its length or joins it

    def _start_executor_manager_thread(self) -> None:
        parts: Any = self
        if not self._direct:
            super()._start_executor_manager_thread()
        elif parts._executor_manager_thread is None:
            if not parts._safe_to_dynamically_spawn_children:
                parts._launch_processes()
            manager = parts._executor_manager_thread = _Manager(self)
            manager.start()
            wakeups: Any = stock._threads_wakeups
            wakeups[manager] = parts._executor_manager_thread_wakeup

    def _adjust_process_count(self) -> None:
        parts: Any = self
        if not self._direct:
            super()._adjust_process_count()
        elif parts._processes is None or getattr(self, "_force_shutting_down", False):
            return
        elif len(parts._processes) < parts._max_workers:
            # Stock counts idle processes, and is mistaken once such a one has ended.
            idle = parts._idle_worker_semaphore.acquire(blocking=False)
            needed = len(parts._pending_work_items) if idle else parts._max_workers
            if len(parts._processes) < min(needed, parts._max_workers):
                parts._spawn_process()


class _Manager(stock._ExecutorManagerThread):  # type: ignore[misc]
    """Stock's thread, which sends calls and sets results as many at a time as there are."""

    call_queue: _Calls
    result_queue: _Results

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        super().__init__(executor)
        self._received: list[Any] = []
        self._cause: Any = None  # why a result could not be unpickled

    def add_call_item_to_queue(self) -> None:
        """Send what calls there is room for."""
        more: Any = self.call_queue.send(self._calls())
        while more is not None:
            work_id, error = more
            text = "".join(format_exception(type(error), error, error.__traceback__))
            error.__cause__ = stock._RemoteTraceback(f'\n"""\n{text}"""')
            item = self.pending_work_items.pop(work_id, None)
            if item is not None:
                item.future.set_exception(error)
            self.thread_wakeup.wakeup()  # it may have been the last
            del item, error, more
            more = self.call_queue.send(self._calls())

    def _calls(self) -> Iterator[tuple[Any, ...]]:
        while True:
            try:
                work_id = self.work_ids_queue.get_nowait()
            except Empty:
                return
            item = self.pending_work_items[work_id]
            if item.future.set_running_or_notify_cancel():
                yield self.call_queue.message(work_id, item)
            else:
                del self.pending_work_items[work_id]
                self.thread_wakeup.wakeup()  # as above

    def wait_result_broken_or_wakeup(self) -> tuple[Any, bool, Any]:
        """What stock's loop is to act upon: an end of a process, or that something is new."""
        received, results, wakeup = self._received, self.result_queue, self.thread_wakeup
        if not received and self._cause is None:
            if results.empty() and not wakeup.woken:
                sentinels = [worker.sentinel for worker in list(self.processes.values())]
                sources = [results._reader, wakeup._reader, *sentinels]
                ready = multiprocessing.connection.wait(sources)
                if results._reader not in ready and wakeup._reader not in ready:
                    return None, True, None
            wakeup.clear()
            try:
                results.take(received)
            except BaseException as error:
                self._cause = format_exception(type(error), error, error.__traceback__)
        settled = 0
        try:
            for result in received:
                settled += 1
                if isinstance(result, int) or result[3] is not None:
                    return _as_item(result), False, None
                self._settle(*result[:3])
                del result
        finally:
            del received[:settled]
            self.call_queue.returned += settled
            self._note_idle(settled)
        return None, self._cause is not None, self._cause

    def _settle(self, work_id: int, exception: Any, value: Any) -> None:
        item = self.pending_work_items.pop(work_id, None)
        if item is None:
            return
        if exception:
            item.future.set_exception(exception)
        else:
            item.future.set_result(value)

    def terminate_broken(self, cause: Any) -> None:
        """Fail what is pending; that of threads, too, which were about to submit it."""
        try:
            super().terminate_broken(cause)
        finally:
            with self.shutdown_lock:  # until 3.12 stock does without it
                late = list(self.pending_work_items.values())
                self.pending_work_items.clear()
            for item in late:
                if not item.future.done():
                    item.future.set_exception(BrokenProcessPool("a process was killed"))

    def _note_idle(self, count: int) -> None:
        executor: Any = self.executor_reference()
        if count and executor is not None:
            executor._idle_worker_semaphore.release(count)


def _as_item(result: Any) -> Any:
    """A result as stock has them: of a worker that has ended, or its process id."""
    if isinstance(result, int):
        return result
    work_id, exception, value, pid = result
    return stock._ResultItem(work_id, exception, value, pid)


class _Wakeup:
    """Wakes the manager, by a descriptor; costs nothing while that is awake already."""

    def __init__(self) -> None:
        self._closed = False
        self._reader = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.woken = False

    def wakeup(self) -> None:
        if not self._closed and not self.woken:
            self.woken = True
            os.eventfd_write(self._reader, 1)

    def clear(self) -> None:
        # In this order: who finds it woken has already done what the manager will look for.
        if not self._closed and self.woken:
            try:
                os.eventfd_read(self._reader)
            except BlockingIOError:
                return  # it is about to be written
            self.woken = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._reader)

    def __del__(self) -> None:
        self.close()


class _Call:
    """What stock's worker takes out of its queue."""

    __slots__ = ("args", "fn", "kwargs", "work_id")

    def __init__(self, fn: Any, work_id: int, args: Any, kwargs: Any) -> None:
        self.fn = fn
        self.work_id = work_id
        self.args = args
        self.kwargs = kwargs


class _Calls:
    """Calls for the workers. Those that they cannot take at once stay with the manager."""

    def __init__(self, queue: Any, workers: int) -> None:
        self._queue = queue
        self._fewest = self._ahead = workers + stock.EXTRA_QUEUED_CALLS
        self._began = 0.0
        self.returned = 0  # calls, since then
        self._names = Names()
        self._known = Known()

    def __reduce__(self) -> Any:
        return _Calls, (self._queue, self._fewest - stock.EXTRA_QUEUED_CALLS)

    # -- the manager's side

    @property
    def _reader(self) -> Any:
        return self._queue._reader

    def message(self, work_id: int, item: Any) -> tuple[Any, ...]:
        """What is sent of a call; the function as its name, if it has one."""
        fn = item.fn
        name = None
        if type(fn) is partial:  # what map() makes
            if fn.func is stock._process_chunk and len(fn.args) == 1 and not fn.keywords:
                name = self._names.pickled(fn.args[0], _in_chunks)
        else:
            name = self._names.pickled(fn)
        return name or fn, work_id, item.args, item.kwargs

    def send(self, calls: Iterator[tuple[Any, ...]]) -> tuple[int, Exception] | None:
        """Send as many as may wait; return what could not be pickled, and why."""
        elapsed = monotonic() - self._began
        if elapsed > SHORT:
            expected = int(self.returned * SHORT / elapsed)
            self._ahead = max(self._fewest, min(expected, CALLS_AHEAD))
            self._began += elapsed
            self.returned = 0
        elif self.returned >= self._ahead:
            self._ahead = min(2 * self._ahead, CALLS_AHEAD)
        outcome = self._queue._put_some(calls, {}, self._ahead)
        if not isinstance(outcome, Exception):
            return None
        work_id = self._queue._held()[1]
        self._queue._drop()
        return work_id, outcome

    def put_nowait(self, nothing: None) -> None:
        """Tell a worker to end."""
        try:
            sent = self._queue._put_some(iter(((nothing, None),)), {}, CALLS_AHEAD + self._fewest)
        except BrokenPipeError:
            return  # none is left
        if not sent:
            self._queue._drop()
            raise Full

    def close(self) -> None:
        self._queue.close()

    def join_thread(self) -> None:
        """Nothing to wait for: there is no thread."""

    cancel_join_thread = join_thread
    _terminate_broken = close

    # -- the workers' side

    def get(self, block: bool = True) -> _Call | None:
        """The next call; None for the end."""
        fn, *rest = self._queue.get()
        if fn is None:
            return None
        return _Call(self._known[fn] if type(fn) is bytes else fn, *rest)


def _in_chunks(fn: Any) -> Any:
    return partial(stock._process_chunk, fn)


class _Results:
    """What comes back."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    @property
    def _reader(self) -> Any:
        return self._queue._reader

    def put(self, item: Any) -> None:
        """Send what stock's worker has made of a call, or its process id at the end."""
        if not isinstance(item, int):
            pid = getattr(item, "exit_pid", None)
            item = item.work_id, item.exception, item.result, pid
        self._queue.put(item)

    def empty(self) -> bool:
        return bool(self._queue.empty())

    def take(self, results: list[Any]) -> None:
        """Append what is there."""
        self._queue._take_some(results, RESULTS, 0)

    def close(self) -> None:
        self._queue.close()
