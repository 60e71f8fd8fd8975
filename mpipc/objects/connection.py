"""The side of a connection that libraries reach for below the public methods."""

from __future__ import annotations

import io
from multiprocessing import connection

__all__ = ["Connection"]


class Connection(connection.Connection):
    """Stock's connection, for a mechanism that moves whole messages.

    The mechanism answers the public methods; what remains here are those that stock builds on a
    byte stream.
    """

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        message = io.BytesIO()
        message.write(self.recv_bytes(maxsize))
        return message
