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

LOOK_EVERY = 0.2
FEWEST_SEATS = 16

FILLING, BROKEN = 0, -2


class Barrier(_stock.Barrier, metaclass=Replacement):
    """A barrier over a condition and memory of ours. It breaks when a party is killed in it.

    Stock counts those who are inside, and lets nobody in while those of a round leave. Here each
    has a seat, which says who it is and for which round it came. So the dead are known, and the
    next round begins at once. All is done under the condition's lock, which passes from a dead
    holder to the next without a word; that one mends what was left:

    ===================================  ==========================================================
    killed                               the others
    ===================================  ==========================================================
    asleep, before it was released       break it, within a slice or when the last one comes
    with the lock, coming or going, or   break it: the dead is missed in this round
    while it runs the action
    having released, before it woke any  go on, within a slice
    released, before it left             free its seat once there is no other
    ===================================  ==========================================================
    """

    if TYPE_CHECKING:  # stock's, which typeshed does not know
        _action: Callable[[], object] | None
        _array: memoryview[int]
        _cond: Any
        _parties: int
        _state: int
        _timeout: float | None

        def _break(self) -> None: ...

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: BaseContext,
    ) -> None:
        # C ints: the state, then what Seats says. A new block is zeroed. Twice as many seats as
        # parties, since those of one round may still be leaving while the next comes.
        block = _core.new_block(8 * (1 + max(FEWEST_SEATS, 2 * parties)))
        lock = RLock(ctx=ctx, on_owner_death="ignore")
        state = (parties, action, timeout, Condition(lock, ctx=ctx), block)
        self.__setstate__(state)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._seats = _core.Seats(state[-1])

    @property
    def _count(self) -> int:
        return self._seats.waiting()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have come.

        Returns
        -------
        int
            How many had come before this one.

        Raises
        ------
        BrokenBarrierError
            The barrier is or was broken or reset, `timeout` seconds have passed, or a party has
            died inside.
        """
        if timeout is None:
            timeout = self._timeout
        seats = self._seats
        with self._cond:
            seat, index = self._enter()
            try:
                if index + 1 == self._parties:
                    self._release()
                else:
                    self._wait(seat, timeout)
            finally:
                if seats.leave(seat):
                    self._cond.notify_all()
        return index

    def reset(self) -> None:
        """Make it as new; who waits gets BrokenBarrierError."""
        with self._cond:
            self._seats.turn_away()
            self._state = FILLING
            self._cond.notify_all()

    def _enter(self) -> tuple[int, int]:
        """Take a seat; which it is, and how many came before."""
        if self._inherited():
            self._mend()
        while True:
            if self._state == BROKEN:
                raise BrokenBarrierError
            if self._state != FILLING:
                raise SegmentCorrupt(
                    f"the state of this barrier cannot be {self._state}: "
                    "some process wrote where it should not"
                )
            index = self._seats.waiting()
            seat = self._seats.enter()
            if seat >= 0:
                return seat, index
            if not self._cond.wait(LOOK_EVERY) or self._inherited():
                self._mend()

    def _release(self) -> None:
        try:
            if self._action:
                self._action()
            # Whom no wake-up reaches may be dead. All others wait for the lock, which we hold.
            if self._cond._wake_all() < self._parties - 1 and self._seats.strike():
                raise BrokenBarrierError
            self._seats.release()
        except BaseException:
            self._break()
            raise

    def _wait(self, seat: int, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        told = self._seats.told
        left = LOOK_EVERY
        while told(seat) == _core.SEATED:
            if self._state != FILLING:
                raise BrokenBarrierError
            if deadline is not None:
                left = min(deadline - time.monotonic(), LOOK_EVERY)
                if left <= 0:
                    self._break()
                    raise BrokenBarrierError
            woken = self._cond.wait(left) and not self._inherited()
            if not woken and told(seat) == _core.SEATED:
                self._mend()
        if told(seat) == _core.SENT_AWAY:
            raise BrokenBarrierError

    def _inherited(self) -> bool:
        """Whether the lock, which we hold, came from one who died in here."""
        return self._cond._lock.inherited_from is not None

    def _mend(self) -> None:
        """Look for the dead, with the lock held; break the barrier if they are missed."""
        missed = self._inherited()
        if not missed:
            inside, mine = self._seats.inside(), _core.own_tag()
            if mine in inside:
                # Each watches the one before it: a look costs the same however many wait.
                before = inside[inside.index(mine) - 1]
                if not _core.owner_dead(before):
                    return
        missed = self._seats.strike() or missed
        if missed and self._state == FILLING:
            self._break()
