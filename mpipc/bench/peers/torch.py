"""torch.multiprocessing: stock's, with reducers for tensors."""

from __future__ import annotations

from torch.multiprocessing import get_context as context

__all__ = ["context"]
