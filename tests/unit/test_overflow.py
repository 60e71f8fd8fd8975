"""Room beyond a mechanism's own queues, in the order of what was sent, whoever is killed."""

from __future__ import annotations

import os
import select
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpipc.adapters.blocks import FileArena
from mpipc.adapters.overflow import ROOM, TAKEN, Overflowing

pytestmark = pytest.mark.beyond_stock("about an adapter")


class Killed(BaseException):
    """In the place of a SIGKILL between two steps."""


class Narrow:
    """Packets with room for two, that die when told to."""

    max_packet = 1000

    def __init__(self):
        self.waiting = deque()
        self.die_after = None

    def _step(self, name):
        if self.die_after == name:
            self.die_after = None
            raise Killed

    def try_send(self, packet):
        if len(self.waiting) == 2:
            return False
        self.waiting.append(packet)
        self._step("send")
        return True

    def try_recv(self):
        packet = self.waiting.popleft() if self.waiting else None
        self._step("recv")
        return packet

    def readable_fd(self):
        return 0


def arena(size):
    return FileArena(os.memfd_create("mpipc-test"), size)


@pytest.fixture
def narrow():
    return Narrow()


@pytest.fixture
def packets(narrow):
    return Overflowing(narrow, arena)


def has_room(packets):
    poller = select.poll()
    poller.register(*packets.writable_fd())
    return bool(poller.poll(0))


def drain(packets):
    return list(iter(packets.try_recv, None))


def test_more_than_the_queue_holds_comes_in_order(packets, narrow):
    sent = [b"%d" % number for number in range(500)]
    assert all(map(packets.try_send, sent))
    assert len(narrow.waiting) == 2
    assert drain(packets) == sent


def test_the_queue_is_never_empty_while_packets_wait(packets, narrow):
    for number in range(100):
        packets.try_send(b"%d" % number)
    for _ in range(99):
        packets.try_recv()
        assert narrow.waiting


def test_who_finds_no_room_is_told_when_there_is(packets):
    packet = bytes(packets.max_packet)
    while packets.try_send(packet):
        pass
    assert not has_room(packets)
    for _ in range(ROOM // len(packet) // 2 + 3):
        packets.try_recv()
    assert has_room(packets)
    assert packets.try_send(packet)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=900)), max_size=400))
@settings(deadline=None)
def test_like_a_queue(operations):
    packets, model = Overflowing(Narrow(), arena), deque()
    for packet in operations:
        if packet is None:
            assert packets.try_recv() == (model.popleft() if model else None)
        elif packets.try_send(packet):
            model.append(packet)
        else:
            assert sum(map(len, model)) > ROOM // 2
    assert drain(packets) == list(model)


@pytest.mark.parametrize("step", ["send", "recv"])
def test_who_is_killed_costs_one_packet_at_most(packets, narrow, step):
    sent = [b"%d" % number for number in range(50)]
    for packet in sent:
        packets.try_send(packet)
    taken = [packets.try_recv() for _ in range(10)]
    narrow.die_after = step
    with pytest.raises(Killed):
        packets.try_recv()
    left = drain(packets)
    # The eleventh was in the killed one's hands; none came twice, none else is missing.
    assert taken + left == sent[:10] + sent[11:]
    assert packets._words[TAKEN] == 50


def test_a_sender_killed_after_sending_has_sent(packets, narrow):
    narrow.die_after = "send"
    with pytest.raises(Killed):
        packets.try_send(b"first")
    packets.try_send(b"second")
    assert drain(packets) == [b"first", b"second"]
