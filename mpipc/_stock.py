"""Stock's own classes and functions, also while :mod:`mpipc._install` has put ours in their places.

Whatever derives from stock's classes takes them from here. Their instances are pickled by reference
to this module as long as their own modules offer ours.
"""

from multiprocessing.connection import Pipe
from multiprocessing.pool import Pool, ThreadPool
from multiprocessing.queues import JoinableQueue, Queue, SimpleQueue
from multiprocessing.sharedctypes import Array, RawArray, RawValue, Value
from multiprocessing.spawn import get_preparation_data, prepare
from multiprocessing.synchronize import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
)

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "ThreadPool",
    "Value",
    "get_preparation_data",
    "prepare",
]
