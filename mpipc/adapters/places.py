"""Places in a queue that come back when whoever had one is killed."""

from __future__ import annotations

from functools import partial

from .. import _core
from .owned import OwnedUnit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from typing import Any

    from ..contracts import Memory, Tokens
    from .guards import Guard

__all__ = ["Places"]


class Places(OwnedUnit):
    """The free places of a queue: units of the core that know their holder.

    A place is held by whoever puts, until the message is sent; then by nobody, as long as the
    message travels; then by whoever receives it, until he gives it back. What a process holds when
    it is killed goes back to those who find no place free.

    =====================================  ========================================================
    killed                                 the others
    =====================================  ========================================================
    with a place, before the message is    give it back
    sent, or after it is received
    the message sent, the place held;      give back a place that the message still has, unless it
    the place adopted, the message there   has arrived by then. Whoever finds all free although he
                                           has a place lets it go without a word
    =====================================  ========================================================

    So no place is lost; a kill at the last two moments makes one too many, until all are free.

    Parameters
    ----------
    most : int
        How many there are.
    tokens, memory : Tokens, Memory
        What who waits sleeps for; 8 bytes.
    reader, writer : Connection
        The ends of the queue.
    sending : Guard
        Held while somebody sends, that is, while a message and its sender may have the same place.
    """

    def __init__(
        self,
        most: int,
        tokens: Tokens,
        memory: Memory,
        reader: Connection[Any, Any],
        writer: Connection[Any, Any],
        sending: Guard,
    ) -> None:
        word = _core.SemLock()
        word._open(_core.SEMAPHORE, most, most, False, undo=True)
        self.__setstate__((word, tokens, memory, reader, writer, sending))

    def __getstate__(self) -> tuple[Any, ...]:
        return *super().__getstate__(), self.reader, self.writer, self.sending

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.reader, self.writer, self.sending = state[3:]
        super().__setstate__(state[:3])
        reader = self.reader
        self._await_message = getattr(reader, "await_message", None) or partial(reader.poll, None)

    def acquire(self, timeout: float | None) -> bool:
        """Take a place; wait `timeout` seconds at most, None for ever."""
        taken = super().acquire(timeout)
        if taken and self._sleepers[0] and self.word._get_value():
            # One token may have come for several places.
            self._wake()
        return taken

    def _take(self) -> bool:
        if self.word._get_value():
            return self.word.acquire(False)
        # What the dead held is counted while nobody sends.
        if not self.sending.acquire(False):
            return False
        try:
            return self.word.acquire(False)
        finally:
            self.sending.release()

    def release(self) -> None:
        """Give a place back."""
        try:
            self.word.release()
        except ValueError:
            self.word._disown()
        self._wake()

    def send_bytes(self, buf: Any) -> None:
        """Send a message, and leave our place to it."""
        self.writer.send_bytes(buf)
        self.word._disown()

    def recv_bytes(self) -> Any:
        """Receive a message and its place."""
        # Adopted first, so that no place is lost with a message; but not while there is none.
        self._await_message()
        self.word._adopt()
        try:
            return self.reader.recv_bytes()
        except BaseException:
            self.word._disown()
            raise
