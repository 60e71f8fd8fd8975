"""UDP on loopback: numbered datagrams, acknowledged, and sent again when they do not arrive.

The numbers, and the packets that are not acknowledged yet, lie in shared memory. So whoever finds
that a datagram is missing, a receiver, sends it again, whether its first sender lives or not. All
of this happens under one lock (flock), which the kernel takes from a process that is killed. Two
bells wake who sleeps: ``filled`` is rung while a packet waits, ``room`` when there is
room for those who wait for it.

====================================  ============================================================
killed                                what the next one finds
====================================  ============================================================
before ``NEXT`` is stored             nothing: the packet was not sent
before its datagram or bell           the packet; the next sender rings, or its receiver sees the
                                      end of the stream and looks
having taken a datagram, not counted  it is missing, and sent again
before ``filled`` is hushed           a bell without a packet; it is hushed
====================================  ============================================================
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from .. import _core
from .._handles import dup_fd
from ..adapters.bells import Bell
from ..adapters.blocks import FileArena
from ..adapters.connections import PacketConnection, packet_pipe
from ..adapters.filelock import FileLock
from .pipe import tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connections", "limits", "memory", "tokens"]

memory = _core.new_block

# Of the next packet to send, of the next to take, which one to take before ringing for room, and
# whether `filled` was rung since it was hushed. Then a word for each packet, then their bytes.
NEXT, TAKEN, WANTED, RUNG, PLACES = range(5)
MOST = 256
RING = 1 << 17
BYTES = 8 * (PLACES + MOST)
LENGTH = 16  # bits of a place that hold the packet's length
NUMBER = 8  # bytes of a datagram that hold the packet's number
# With the kernel's overhead a little below a power of two, which is what it allocates.
MAX_PACKET = 15 << 10
RESENDS = 5

# Tests put something in its place that loses, doubles and reorders.
transmit = socket.socket.send


class Packets:
    """One direction. Whoever has it has both its sockets and may send, receive and send again."""

    max_packet = MAX_PACKET

    def __init__(self) -> None:
        self._out, self._in = sockets()
        self._filled, self._room = Bell(), Bell()
        self._open(FileArena(os.memfd_create("mpipc-udp"), BYTES + RING))

    def __getstate__(self) -> tuple[Any, ...]:
        ends = dup_fd(self._out.fileno()), dup_fd(self._in.fileno())
        return (self._arena, self._filled, self._room, *ends)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        arena, self._filled, self._room, *ends = state
        self._out, self._in = (socket.socket(fileno=end.detach()) for end in ends)
        self._open(arena)

    def _open(self, arena: FileArena) -> None:
        self._arena = arena
        view = memoryview(arena.buffer)
        self._words = view[:BYTES].cast("Q")
        self._ring = view[BYTES:]
        self._lock = FileLock(arena.fd)

    def try_send(self, packet: bytes) -> bool:
        """Send, if there is room."""
        return self._lock.alone(self._send, packet)

    def try_recv(self) -> bytes | None:
        """Take the next packet."""
        return self._lock.alone(self._recv)

    def readable_fd(self) -> int:
        return self._filled.fileno()

    def writable_fd(self) -> tuple[int, int]:
        return self._room.fileno(), select.POLLIN

    def _send(self, packet: bytes) -> bool:
        words = self._words
        number, taken = words[NEXT], words[TAKEN]
        start = 0
        if number > taken:
            start = sum(self._place(number - 1))
            if start % RING + len(packet) > RING:
                start += -start % RING
            oldest, _ = self._place(taken)
            if number - taken == MOST or start + len(packet) - oldest > RING:
                # Not at the first packet taken, so that sender and receiver work in turns.
                self._room.hush()
                words[WANTED] = taken + (number - taken + 1) // 2
                return False
        words[PLACES + number % MOST] = start << LENGTH | len(packet)
        self._ring[start % RING : start % RING + len(packet)] = packet
        words[NEXT] = number + 1
        self._transmit(number)
        if not words[RUNG]:
            self._filled.ring()
            words[RUNG] = 1
        return True

    def _recv(self) -> bytes | None:
        words = self._words
        number = words[TAKEN]
        if number == words[NEXT]:
            self._hush_filled()
            return None
        packet = self._arrived(number)
        for _ in range(RESENDS):
            if packet is not None:
                break
            for missing in range(number, words[NEXT]):
                self._transmit(missing)
            packet = self._arrived(number)
        else:
            # Something keeps datagrams from arriving; nothing is lost for that.
            packet = packet or self._unacknowledged(number)
        # In this order: killed in between, nobody waits for room that there is.
        if words[WANTED] and number + 1 >= words[WANTED]:
            self._room.ring()
            words[WANTED] = 0
        words[TAKEN] = number + 1
        if number + 1 == words[NEXT]:
            self._hush_filled()
        return packet

    def _hush_filled(self) -> None:
        self._words[RUNG] = 0
        self._filled.hush()

    def _place(self, number: int) -> tuple[int, int]:
        """Where a packet begins, the ring's rounds included, and its length."""
        place = self._words[PLACES + number % MOST]
        return place >> LENGTH, place & ((1 << LENGTH) - 1)

    def _unacknowledged(self, number: int) -> bytes:
        start, length = self._place(number)
        return bytes(self._ring[start % RING : start % RING + length])

    def _transmit(self, number: int) -> None:
        # What the kernel refuses now is a datagram lost.
        with contextlib.suppress(OSError):
            transmit(self._out, number.to_bytes(NUMBER, "little") + self._unacknowledged(number))

    def _arrived(self, number: int) -> bytes | None:
        """The packet, if its datagram has arrived.

        Earlier ones are copies and later ones came too early: they are dropped, and these are
        missed, and sent again, when it is their turn.
        """
        while True:
            try:
                datagram = self._in.recv(NUMBER + MAX_PACKET)
            except BlockingIOError:
                return None
            if int.from_bytes(datagram[:NUMBER], "little") == number:
                return datagram[NUMBER:]


def sockets() -> tuple[socket.socket, socket.socket]:
    """Two that are connected to each other, so that the kernel keeps strangers' datagrams away."""
    ends = []
    try:
        for _ in range(2):
            ends.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            ends[-1].bind(("127.0.0.1", 0))
            ends[-1].setblocking(False)
        one, two = ends
        one.connect(two.getsockname())
        two.connect(one.getsockname())
        two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * RING)
        # A stranger may have been faster than connect().
        with contextlib.suppress(BlockingIOError):
            while True:
                two.recv(1)
    except BaseException:
        for end in ends:
            end.close()
        raise
    return one, two


def connections(duplex: bool) -> tuple[PacketConnection, PacketConnection]:
    """Two connected ends; without `duplex` the first only reads and the second only writes."""
    return packet_pipe(Packets, duplex)


def limits() -> dict[str, Any]:
    """The room for datagrams that nobody has taken yet, in bytes."""
    packets = Packets()
    with packets._out as one, packets._in as two:
        two.settimeout(1)
        try:
            one.send(b"?")
            two.recv(1)
        except OSError as error:
            raise OSError(
                error.errno,
                f"datagrams do not arrive within 127.0.0.1: {error}; is the interface lo up "
                "(ip link set lo up), and does a firewall or seccomp forbid them?",
            ) from None
        return {"SO_RCVBUF": two.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)}
