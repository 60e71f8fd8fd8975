"""Locks that know their holder, over tokens that do not."""

from __future__ import annotations

import math
import time

from .. import _core
from .._lifetime import watch_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..contracts import Memory, Tokens

__all__ = ["OwnedUnit"]

# Seconds after which who waits for a lock looks whether its holder lives.
SLICE = 0.2

watch_exit()


class OwnedUnit:
    """One unit that passes on when its holder is killed: a word of the core.

    Who waits sleeps for a token of the mechanism. Who gives the unit back sends one if somebody may
    wait; a token too many wakes somebody for nothing. One that was lost with whoever was killed in
    between, and a holder that was, are found when a slice of sleep is over.
    """

    def __init__(self, tokens: Tokens, memory: Memory) -> None:
        self.word = _core.SemLock()
        self.word._open(_core.SEMAPHORE, 1, 1, True)
        self.tokens = tokens
        self.memory = memory
        self._view()

    def _view(self) -> None:
        self._sleepers = self.memory.create_memoryview().cast("q")

    def __getstate__(self) -> tuple[_core.SemLock, Tokens, Memory]:
        return self.word, self.tokens, self.memory

    def __setstate__(self, state: tuple[_core.SemLock, Tokens, Memory]) -> None:
        self.word, self.tokens, self.memory = state
        self._view()

    @property
    def handle(self) -> int:
        return self.tokens.handle

    def acquire(self, timeout: float | None) -> bool:
        taken = self._take()
        if taken or timeout == 0:
            return taken
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            # Also for others: who wakes up does not know whether he was the only one.
            self._sleepers[0] = 1
            if self._take():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.tokens.acquire(min(left, SLICE))

    def _take(self) -> bool:
        return self.word.acquire(False)

    def release(self) -> None:
        self.word.release()
        self._wake()

    def _wake(self) -> None:
        if self._sleepers[0]:
            self._sleepers[0] = 0
            self.tokens.try_release()

    def value(self) -> int:
        return self.word._get_value()
