"""Who takes part: stock, ours, and those of the peers that are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import multiprocessing
from dataclasses import dataclass
from typing import Any

import mpipc  # noqa: F401  # registers its contexts
from mpipc._registry import PREFIX, mechanisms
from mpipc.cli.mechanisms import report
from mpipc.cli.sides import with_start_method

from .model import Scenario

STOCK = "stock"
OURS = "mpipc-shm"
# In the place of a side: all mechanisms that work here.
MECHANISMS = "mechanisms"


@dataclass(frozen=True)
class Peer:
    """Another package: what it imports as, who makes it look like a context, what it can play."""

    package: str
    module: str
    offers: frozenset[str]


# By the names of their distributions.
PEERS = {
    "faster-fifo": Peer("faster_fifo", "faster_fifo", frozenset({"Queue", "Queue.consumers"})),
    "pyzmq": Peer("zmq", "pyzmq", frozenset({"Queue", "Pipe"})),
    "iceoryx2": Peer("iceoryx2", "iceoryx2", frozenset({"Queue", "Pipe"})),
    "torch": Peer("torch", "torch", frozenset({"Queue", "Pool", "Pool.map"})),
    "billiard": Peer("billiard", "billiard", frozenset({"Pool", "Pool.map"})),
    "loky": Peer("loky", "loky", frozenset({"ProcessPoolExecutor"})),
    "joblib": Peer("joblib", "joblib", frozenset({"Pool.map"})),
}


@dataclass(frozen=True)
class Side:
    """Something that is measured."""

    name: str
    context: Any
    version: str = ""
    # None: everything, as contexts of multiprocessing do.
    offers: frozenset[str] | None = None

    def plays(self, scenario: Scenario) -> bool:
        """Whether it takes part in a scenario."""
        return self.offers is None or scenario.needs in self.offers


def default_names() -> list[str]:
    """Stock, ours, and every peer."""
    return [STOCK, OURS, *PEERS]


def find_sides(names: list[str], method: str) -> tuple[list[Side], dict[str, str]]:
    """Make ready who was asked for.

    Parameters
    ----------
    names : list of str
        ``"stock"``, names of peers and of contexts, ``"mechanisms"`` for all that work here.
    method : str
        How processes start.

    Returns
    -------
    list of Side
        Those that are here, in the order of the names.
    dict
        Why the others are not, by name.

    Raises
    ------
    ValueError
        For a name that means nothing.
    """
    sides: list[Side] = []
    absent: dict[str, str] = {}
    for name in names:
        if name == MECHANISMS:
            for mechanism, spec in mechanisms().items():
                if why_not := report(spec).why_not:
                    absent[PREFIX + mechanism] = why_not
                else:
                    sides.append(_context(PREFIX + mechanism, method))
        elif name in PEERS:
            try:
                sides.append(_peer(name, method))
            except (ImportError, OSError) as error:
                absent[name] = f"not usable here: {error}"
        else:
            sides.append(_context(name, method))
    return list({side.name: side for side in sides}.values()), absent


def _context(name: str, method: str) -> Side:
    full = method if name == STOCK else with_start_method(name, method)
    return Side(name, multiprocessing.get_context(full))


def _peer(name: str, method: str) -> Side:
    peer = PEERS[name]
    adapter = importlib.import_module(f"{__package__}.peers.{peer.module}")
    version = importlib.metadata.version(name)
    return Side(name, adapter.context(method), version, peer.offers)
