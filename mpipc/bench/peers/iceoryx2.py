"""iceoryx2: samples in shared memory, and an event that says that one is there."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import time
from multiprocessing import util
from typing import Any

import iceoryx2 as iox

from . import decode, encode, process_class

# For at most so many seconds, should a listener have been killed.
LINGER = 5.0

# How many may use a channel.
PROCESSES = 16

_numbers = itertools.count()


@functools.cache
def node() -> Any:
    """This process's node."""
    iox.set_log_level(iox.LogLevel.Error)
    # After all ports: a node that is not dropped leaves files to whoever makes the next one.
    util.Finalize(None, node.cache_clear, exitpriority=-1)
    builder = iox.NodeBuilder.new().signal_handling_mode(iox.SignalHandlingMode.Disabled)
    return builder.create(iox.ServiceType.Ipc)


# A node belongs to the process that made it.
os.register_at_fork(after_in_child=node.cache_clear)


def linger(messages: Any, pid: int) -> None:
    """Keep the memory until nobody listens any more: the samples are the publisher's."""
    until = time.monotonic() + LINGER
    while (
        os.getpid() == pid
        and messages.dynamic_config.number_of_subscribers
        and time.monotonic() < until
    ):
        time.sleep(1e-3)


class Channel:
    """One direction; each process opens the ports that it uses, when it first does."""

    def __init__(self, name: str, limit: int) -> None:
        self._how = name, limit
        self._publisher: Any = None
        self._subscriber: Any = None
        self._closing: list[Any] = []
        # The services must be there before either side looks for the other.
        self._services = self._open() if os.getpid() == int(name.split("-")[2]) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._how

    def _open(self) -> tuple[Any, Any]:
        name, limit = self._how
        builder = node().service_builder(iox.ServiceName.new(name))
        messages = builder.publish_subscribe(iox.Slice[ctypes.c_uint8])
        messages = messages.subscriber_max_buffer_size(limit).enable_safe_overflow(False)
        messages = messages.max_publishers(PROCESSES).max_nodes(PROCESSES)
        return messages.open_or_create(), builder.event().max_notifiers(PROCESSES).max_nodes(
            PROCESSES
        ).open_or_create()

    def send(self, message: object) -> None:
        """Wait for room, then send."""
        if self._publisher is None:
            self._connect()
        data = encode(message)
        sample = self._publisher.loan_slice_uninit(len(data))
        ctypes.memmove(sample.payload().as_ptr(), data, len(data))
        sample.assume_init().send()
        self._notifier.notify()

    def _connect(self) -> None:
        messages, event = self._open()
        strategy = iox.BackpressureStrategy.RetryUntilDelivered
        publisher = messages.publisher_builder().backpressure_strategy(strategy)
        publisher = publisher.initial_max_slice_len(4096)
        self._publisher = publisher.allocation_strategy(iox.AllocationStrategy.PowerOfTwo).create()
        self._notifier = event.notifier_builder().create()
        # What is sent before somebody listens is lost.
        while not messages.dynamic_config.number_of_subscribers:
            time.sleep(1e-3)
        self._at_end(linger, messages, os.getpid(), priority=0)

    def _at_end(self, call: Any, *args: Any, priority: int) -> None:
        self._closing.append(util.Finalize(self, call, args, exitpriority=priority))

    def recv(self) -> object:
        """Wait for a message."""
        if self._subscriber is None:
            messages, event = self._open()
            self._listener = event.listener_builder().create()
            self._subscriber = messages.subscriber_builder().create()
            # Before lingering for the other side, which may be lingering for this one.
            self._at_end(self._subscriber.delete, priority=1)
        while (sample := self._subscriber.receive()) is None:
            self._listener.blocking_wait()
        message = decode(sample.payload().as_memory_view())
        sample.delete()
        return message

    def close(self) -> None:
        """Close this process's ports."""
        for close in self._closing:
            close()
        self._publisher = self._subscriber = self._services = None


def new_channel(limit: int) -> Channel:
    """A channel with a name of its own."""
    return Channel(f"mpipc-bench-{os.getpid()}-{next(_numbers)}", limit)


class Queue:
    """One puts, one gets."""

    def __init__(self, maxsize: int = 1000) -> None:
        self._channel = new_channel(min(maxsize, 1000))
        self.put, self.get, self.close = (
            self._channel.send,
            self._channel.recv,
            self._channel.close,
        )


class End:
    """An end of a pipe."""

    def __init__(self, there: Channel, back: Channel) -> None:
        self._channels = there, back
        self.send, self.recv = there.send, back.recv

    def close(self) -> None:
        """Close this process's ports."""
        for channel in self._channels:
            channel.close()


class Context:
    """Its queue and pipe."""

    Queue = Queue

    def __init__(self, method: str) -> None:
        self.Process = process_class(method)

    def Pipe(self) -> tuple[End, End]:
        """Two ends."""
        one, other = new_channel(1000), new_channel(1000)
        return End(one, other), End(other, one)


context = Context
