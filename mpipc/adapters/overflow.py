"""Room for packets beyond what a mechanism's own queues hold: a ring in its shared memory.

A packet that finds no room goes to the ring, and whoever takes one moves others up in its place.
So the mechanism's queue is never empty while packets wait in the ring, and its descriptor tells of
both. All of this happens under a lock that the kernel takes from a process that is killed; each
packet has a number, so that one that was moved up twice is taken once:

==========================================  ====================================================
killed                                      what the next one finds
==========================================  ====================================================
between a number and its packet             a number that nobody has
between moving a packet up and noting that  the packet is moved up again, and dropped when taken
between taking a packet and moving others   the others, when it takes the next
==========================================  ====================================================
"""

from __future__ import annotations

import select

from .bells import Bell
from .filelock import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..contracts import Packets
    from .blocks import FileArena

__all__ = ["Overflowing"]

# Words: the number of the next packet and of the last one taken, where in the ring the oldest
# begins and where the next goes (both only grow), and whether a sender waits for room.
NEXT, TAKEN, HEAD, TAIL, WANTED, WORDS = range(6)
NUMBER = 8
LENGTH = 4
# As much as a pipe holds.
ROOM = 1 << 16


class Overflowing:
    """Packets of a mechanism, and a ring for those that it has no room for.

    Parameters
    ----------
    packets : Packets
        Of at least two packets' room.
    new_arena : callable
        Makes a FileArena of so many bytes.
    """

    def __init__(self, packets: Packets, new_arena: Callable[[int], FileArena]) -> None:
        self._open(packets, new_arena(8 * WORDS + ROOM), Bell())

    def __getstate__(self) -> tuple[Packets, FileArena, Bell]:
        return self._packets, self._arena, self._room

    def __setstate__(self, state: tuple[Packets, FileArena, Bell]) -> None:
        self._open(*state)

    def _open(self, packets: Packets, arena: FileArena, room: Bell) -> None:
        self._packets = packets
        self._arena = arena
        self._room = room
        view = memoryview(arena.buffer)
        self._words = view[: 8 * WORDS].cast("Q")
        self._ring = view[8 * WORDS : 8 * WORDS + ROOM]
        self._lock = FileLock(arena.fd)
        self.max_packet = packets.max_packet - NUMBER

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        return self._lock.alone(self._send, packet)

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        return self._lock.alone(self._recv)

    def readable_fd(self) -> int:
        return self._packets.readable_fd()

    def writable_fd(self) -> tuple[int, int]:
        return self._room.fileno(), select.POLLIN

    def _send(self, packet: bytes) -> bool:
        words = self._words
        number = words[NEXT]
        packet = number.to_bytes(NUMBER, "little") + packet
        words[NEXT] = number + 1
        self._move_up()
        if words[HEAD] == words[TAIL] and self._packets.try_send(packet):
            return True
        end = words[TAIL] + LENGTH + len(packet)
        if end - words[HEAD] > ROOM:
            # What rang before is over; from here on who takes rings again.
            self._room.hush()
            words[WANTED] = 1
            return False
        self._write(words[TAIL], len(packet).to_bytes(LENGTH, "little") + packet)
        words[TAIL] = end
        return True

    def _recv(self) -> bytes | None:
        words = self._words
        while True:
            packet = self._packets.try_recv()
            if packet is None:
                if words[HEAD] == words[TAIL]:
                    return None
                self._move_up()
                continue
            number = int.from_bytes(packet[:NUMBER], "little")
            if number >= words[TAKEN]:
                words[TAKEN] = number + 1
                self._move_up()
                return packet[NUMBER:]

    def _move_up(self) -> None:
        words = self._words
        while words[HEAD] < words[TAIL]:
            start = words[HEAD] + LENGTH
            end = start + int.from_bytes(self._read(words[HEAD], start), "little")
            if not self._packets.try_send(self._read(start, end)):
                break
            words[HEAD] = end
        if words[WANTED] and words[TAIL] - words[HEAD] <= ROOM // 2:
            self._room.ring()
            words[WANTED] = 0

    def _read(self, start: int, end: int) -> bytes:
        first = start % ROOM
        length = end - start
        return bytes(self._ring[first : first + length]) + bytes(
            self._ring[: max(0, first + length - ROOM)]
        )

    def _write(self, start: int, data: bytes) -> None:
        first = start % ROOM
        fits = min(len(data), ROOM - first)
        self._ring[first : first + fits] = data[:fits]
        self._ring[: len(data) - fits] = data[fits:]
