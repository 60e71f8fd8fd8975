"""joblib: parallel loops, over loky; it starts processes in its own way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import joblib


class Pool:
    """As much of a pool as a loop is; a batch is one task, as in ``Pool.map`` with chunksize 1."""

    def __init__(self, parallel: Any) -> None:
        self._parallel = parallel

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], chunksize: int) -> Any:
        """Apply a function to all items."""
        return self._parallel(joblib.delayed(function)(item) for item in items)


class Context:
    """Its loop, as a pool."""

    def __init__(self, method: str) -> None:
        pass

    @contextlib.contextmanager
    def Pool(self, processes: int) -> Iterator[Pool]:
        """Workers that stay for all loops in the block."""
        with joblib.Parallel(n_jobs=processes, batch_size=1) as parallel:
            yield Pool(parallel)


context = Context
