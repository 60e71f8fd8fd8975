"""Stock's locks over a counting semaphore of any mechanism."""

from __future__ import annotations

import threading
from multiprocessing import util
from multiprocessing.context import BaseContext, assert_spawning

from .. import _stock
from .._context import mechanism_of
from .._replacement import Replacement
from ..adapters.guards import Guard
from ..adapters.owned import OwnedUnit
from .synchronize import MADE_FOR_FORK, SEM_VALUE_MAX, checked_value, made_for_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..contracts import CountingSemaphore, Memory, Tokens

__all__ = ["BoundedSemaphore", "Lock", "RLock", "SemLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = range(2)


class SemLock:
    """What ``_multiprocessing.SemLock`` offers, over units that a mechanism keeps.

    As there, the count and the holder are known for this handle in this process only.
    """

    SEM_VALUE_MAX = SEM_VALUE_MAX
    name = None

    def __init__(self, kind: int, maxvalue: int, units: CountingSemaphore) -> None:
        self.kind = kind
        self.maxvalue = maxvalue
        self.units = units
        self._after_fork()

    def __getstate__(self) -> tuple[int, int, CountingSemaphore]:
        return self.kind, self.maxvalue, self.units

    def __setstate__(self, state: tuple[int, int, CountingSemaphore]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _after_fork(self) -> None:
        self._held = 0
        self._holder = 0

    @property
    def handle(self) -> int:
        """The descriptor or number behind it."""
        return self.units.handle

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a unit."""
        if self.kind == RECURSIVE_MUTEX and self._is_mine():
            self._held += 1
            return True
        if not block:
            timeout = 0
        elif timeout is not None:
            timeout = max(0, timeout)
        if not self.units.acquire(timeout):
            return False
        self._held += 1
        self._holder = threading.get_ident()
        return True

    def release(self) -> None:
        """Give a unit back."""
        if self.kind == RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self.units.value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        self._held -= 1
        self.units.release()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._holder == threading.get_ident()

    def _get_value(self) -> int:
        return self.units.value()

    def _is_zero(self) -> bool:
        return self.units.value() == 0


class Surplus:
    """Units beyond what a mechanism can hold at once; they wait in shared memory.

    Who finds no token left moves some of the surplus there, under a token of its own. So nobody
    sleeps while there is a surplus, and one grows only while the mechanism is full.
    """

    def __init__(self, tokens: Tokens, memory: Memory, value: int) -> None:
        self.tokens = tokens
        self.guard = Guard()
        self.memory = memory
        self._view()
        self._surplus[0] = value - min(value, tokens.capacity)

    def _view(self) -> None:
        self._surplus = self.memory.create_memoryview().cast("q")

    def __getstate__(self) -> tuple[Tokens, Guard, Memory]:
        return self.tokens, self.guard, self.memory

    def __setstate__(self, state: tuple[Tokens, Guard, Memory]) -> None:
        self.tokens, self.guard, self.memory = state
        self._view()

    @property
    def handle(self) -> int:
        return self.tokens.handle

    def acquire(self, timeout: float | None) -> bool:
        return self.tokens.acquire(0) or self._refill() or self.tokens.acquire(timeout)

    def release(self) -> None:
        if not self.tokens.try_release():
            with self.guard:
                if not self.tokens.try_release():
                    self._surplus[0] += 1

    def value(self) -> int:
        with self.guard:
            return self.tokens.value() + self._surplus[0]

    def _refill(self) -> bool:
        """Take a unit of the surplus, and make tokens of some more."""
        if not self._surplus[0]:
            return False
        with self.guard:
            taken = self._surplus[0] > 0
            self._surplus[0] -= taken
            for _ in range(min(self._surplus[0], self.tokens.capacity // 2)):
                if not self.tokens.try_release():
                    break
                self._surplus[0] -= 1
        return taken


def new_semlock(
    kind: int, value: int, maxvalue: int, ctx: BaseContext | None, owned: bool = False
) -> SemLock:
    """A lock or semaphore of a context's mechanism; `owned` if whoever takes it also holds it."""
    mechanism = mechanism_of(ctx)
    if owned and hasattr(mechanism, "lock"):
        return SemLock(kind, maxvalue, mechanism.lock())
    if owned:
        return SemLock(kind, maxvalue, OwnedUnit(mechanism.tokens(0), mechanism.memory(8)))
    if maxvalue <= mechanism.tokens.capacity:
        return SemLock(kind, maxvalue, mechanism.tokens(value))
    tokens = mechanism.tokens(min(value, mechanism.tokens.capacity))
    return SemLock(kind, maxvalue, Surplus(tokens, mechanism.memory(8), value))


class Surface:
    """What stock's lock classes keep around their ``_semlock``; stands before one of them."""

    _semlock: SemLock
    SEM_VALUE_MAX = SEM_VALUE_MAX

    def _open(
        self, kind: int, value: int, maxvalue: int, ctx: BaseContext | None, owned: bool = False
    ) -> None:
        self._is_fork_ctx = made_for_fork(ctx)
        self._adopt(new_semlock(kind, value, maxvalue, ctx, owned))

    def _adopt(self, semlock: SemLock) -> None:
        self._semlock = semlock
        self._make_methods()  # type: ignore[attr-defined]
        util.register_after_fork(self, _after_fork)

    def locked(self) -> bool:
        """Whether no unit is left."""
        return self._semlock._is_zero()

    def __getstate__(self) -> SemLock:
        assert_spawning(self)
        if self._is_fork_ctx:
            raise RuntimeError(MADE_FOR_FORK)
        return self._semlock

    def __setstate__(self, semlock: SemLock) -> None:
        self._is_fork_ctx = False
        self._adopt(semlock)


def _after_fork(lock: Surface) -> None:
    lock._semlock._after_fork()


class Lock(Surface, _stock.Lock, metaclass=Replacement):
    """A lock that any process or thread may release."""

    def __init__(self, *, ctx: BaseContext | None) -> None:
        self._open(SEMAPHORE, 1, 1, ctx, owned=True)


class RLock(Surface, _stock.RLock, metaclass=Replacement):
    """A lock that its holder may take again, and only its holder may release."""

    def __init__(self, *, ctx: BaseContext | None) -> None:
        self._open(RECURSIVE_MUTEX, 1, 1, ctx, owned=True)


class Semaphore(Surface, _stock.Semaphore, metaclass=Replacement):
    """A number of units to take and give back."""

    def __init__(self, value: int = 1, *, ctx: BaseContext | None) -> None:
        self._open(SEMAPHORE, checked_value(value, SEM_VALUE_MAX), SEM_VALUE_MAX, ctx)


class BoundedSemaphore(Surface, _stock.BoundedSemaphore, metaclass=Replacement):
    """A semaphore that cannot be released above its first value."""

    def __init__(self, value: int = 1, *, ctx: BaseContext | None) -> None:
        value = checked_value(value, SEM_VALUE_MAX)
        self._open(SEMAPHORE, value, value, ctx)
