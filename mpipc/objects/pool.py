"""The pool: stock's, over a context whose queues are ours."""

from __future__ import annotations

from multiprocessing import pool

__all__ = ["Pool"]


class Pool(pool.Pool):
    """Stock's pool. Its task and result queues are the context's ``SimpleQueue``."""
