"""The barrier, which breaks when one who waits in it is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from threading import BrokenBarrierError

from .. import _core, _stock
from .._replacement import Replacement
from ..errors import SegmentCorrupt
from .shm import Condition, RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Barrier"]

# Those who wait are known by their owner tags; further ones, and there are few such barriers, are
# only counted.
PLACES = 126
LOOK_EVERY = 0.2

FILLING, DRAINING, RESETTING = 0, 1, -1


class Barrier(_stock.Barrier, metaclass=Replacement):
    """Stock's barrier, over a condition and memory of ours. It breaks when a party is killed in it.

    Stock counts those who are inside; here the count is that of their tags, so that the dead among
    them can be told. All is done under the condition's lock, each step in one store. It passes from
    a dead holder to the next without a word, and that one mends what was left:

    ===================================  ==========================================================
    killed                               the others
    ===================================  ==========================================================
    asleep, while the barrier fills      break it, within a slice or when the last one comes
    with the lock, while it fills        break it: the dead was coming, ran the action or had just
                                         left, and is missed in this round
    while the barrier drains or resets   strike it out, so that the next round can begin
    ===================================  ==========================================================
    """

    if TYPE_CHECKING:  # stock's, which typeshed does not know
        _array: memoryview[int]
        _action: Callable[[], object] | None
        _cond: Any
        _state: int

        def _break(self) -> None: ...
        def _exit(self) -> None: ...

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: BaseContext,
    ) -> None:
        # C ints: the state, how many are only counted, the tags. A new block is zeroed.
        block = _core.new_block(4 * (2 + PLACES))
        lock = RLock(ctx=ctx, on_owner_death="ignore")
        state = (parties, action, timeout, Condition(lock, ctx=ctx), block)
        self.__setstate__(state)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._tags = self._array[2:]
        self._seats = _core.Seats(state[-1])

    @property
    def _count(self) -> int:
        return self._seats.taken()

    @_count.setter
    def _count(self, value: int) -> None:
        """Count ourselves in or out, which is all that stock's code does."""
        if value > self._seats.taken():
            self._seats.enter()
        else:
            self._seats.leave()

    def _enter(self) -> None:
        if self._inherited():
            self._mend()
        while self._state in (DRAINING, RESETTING):
            if not self._cond.wait(LOOK_EVERY) or self._inherited():
                self._mend()
        if self._state > DRAINING:
            raise SegmentCorrupt(
                f"the state of this barrier cannot be {self._state}: "
                "some process wrote where it should not"
            )
        super()._enter()  # type: ignore[misc]

    def _release(self) -> None:
        try:
            if self._action:
                self._action()
            self._state = DRAINING
            # Whom no wake-up reaches may be dead. All others wait for the lock, which we hold.
            if self._cond._wake_all() < self._count - 1 and self._strike(self._inside()):
                raise BrokenBarrierError
        except BaseException:
            self._break()
            raise

    def _wait(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._state == FILLING:
            left = LOOK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                self._break()
                raise BrokenBarrierError
            if not self._cond.wait(min(left, LOOK_EVERY)) or self._inherited():
                self._mend()
        if self._state < 0:
            raise BrokenBarrierError

    def _inherited(self) -> bool:
        """Whether the lock, which we hold, came from one who died in here."""
        return self._cond._lock.inherited_from is not None

    def _inside(self) -> list[int]:
        return [*dict.fromkeys(filter(None, self._tags.tolist()))]

    def _mend(self) -> None:
        """Look for the dead, with the lock held; break the barrier if they are missed."""
        inside, mine = self._inside(), _core.own_tag()
        missed = self._inherited()
        if not missed and mine in inside:
            # Each watches the one before it, so that a look costs the same however many wait.
            before = inside[inside.index(mine) - 1]
            if not _core.owner_dead(before):
                return
        missed = self._strike(inside) or missed
        if missed and self._state == FILLING:
            self._break()
        elif missed:
            self._exit()

    def _strike(self, tags: list[int]) -> bool:
        """Forget the dead among `tags`; whether there were any."""
        dead = {tag for tag in tags if _core.owner_dead(tag)}
        for place, tag in enumerate(self._tags.tolist()):
            if tag in dead:
                self._tags[place] = 0
        return bool(dead)
