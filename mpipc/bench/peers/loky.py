"""loky: an executor; it starts processes in its own way."""

from __future__ import annotations

import loky


class Context:
    """Its executor."""

    def __init__(self, method: str) -> None:
        self.ProcessPoolExecutor = loky.ProcessPoolExecutor


context = Context
