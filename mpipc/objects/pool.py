"""The pool: stock's, over a context whose queues are ours."""

from __future__ import annotations

from .. import _stock
from .._replacement import Replacement

__all__ = ["Pool"]


class Pool(_stock.Pool, metaclass=Replacement):
    """Stock's pool. Its task and result queues are the context's ``SimpleQueue``."""
