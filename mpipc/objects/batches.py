"""``put_many`` and ``get_many`` over stock's ``put`` and ``get``, one message after the other."""

from __future__ import annotations

import contextlib
from multiprocessing.reduction import ForkingPickler
from queue import Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["QueueBatches", "SimpleQueueBatches"]


def checked_count(most: int) -> int:
    if most < 1:
        raise ValueError(f"max must be at least 1, got {most}")
    return most


class Batches:
    put: Any

    def put_many(self, iterable: Iterable[Any]) -> None:
        """put() each item, in order; those of other producers may come between."""
        for obj in iterable:
            self.put(obj)


class QueueBatches(Batches):
    get: Any

    def get_many(self, max: int, timeout: float | None = None) -> list[Any]:
        """Wait for an item, at most `timeout` seconds, then take all that wait, `max` at most."""
        checked_count(max)
        items = [self.get(True, timeout)]
        with contextlib.suppress(Empty):
            while len(items) < max:
                items.append(self.get(False))
        return items

    def shutdown(self, immediate: bool = False) -> None:
        """Only on mpipc-shm."""
        raise NotImplementedError(
            f"{type(self).__name__}.shutdown() needs the context mpipc-shm; elsewhere, put a "
            "message that tells those who take it to stop"
        )


class SimpleQueueBatches(Batches):
    _rlock: Any
    _reader: Any

    def get_many(self, max: int) -> list[Any]:
        """Wait for an item, then take all that wait, `max` at most."""
        checked_count(max)
        with self._rlock:
            messages = [self._reader.recv_bytes()]
            while len(messages) < max and self._reader.poll():
                messages.append(self._reader.recv_bytes())
        return [ForkingPickler.loads(message) for message in messages]
