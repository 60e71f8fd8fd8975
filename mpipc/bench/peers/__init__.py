"""Peers, made to look like a context of multiprocessing as far as scenarios need it.

Each module has a function `context`, which takes a start method. Where a peer moves only bytes,
bytes go as they are and all else goes pickled.
"""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

# How every pickle of this protocol begins.
PROTOCOL = 5
MARK = bytes([0x80, PROTOCOL])


def process_class(method: str) -> Any:
    """Stock's processes, for peers that have none."""
    ctx: Any = multiprocessing.get_context(method)
    return ctx.Process


def encode(message: object) -> bytes:
    """Make bytes of a message."""
    if type(message) is bytes and not message.startswith(MARK):
        return message
    return pickle.dumps(message, PROTOCOL)


def decode(data: Any) -> object:
    """Make a message of bytes, or of a view, which is not kept."""
    if data[:2] == MARK:
        return pickle.loads(data)
    return bytes(data)
