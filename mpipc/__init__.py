"""Drop-in multiprocessing backends that are fast and outlive crashes.

Importing this package registers its contexts with :mod:`multiprocessing`::

    import multiprocessing, mpipc
    ctx = multiprocessing.get_context("mpipc-shm")

Nothing else happens before a context is used: no extension is loaded, no memory is taken.
"""

from ._registry import MechanismSpec, context_names, get_context, mechanisms, register
from .errors import OwnerDied, OwnerDiedWarning, SegmentCorrupt, WorkerLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._install import install, uninstall
    from ._shutdown import ShutDown

__all__ = [
    "MechanismSpec",
    "OwnerDied",
    "OwnerDiedWarning",
    "SegmentCorrupt",
    "ShutDown",
    "WorkerLost",
    "__version__",
    "context_names",
    "get_context",
    "install",
    "mechanisms",
    "uninstall",
]

__version__ = "0.1.0"

register()


def __getattr__(name: str) -> "Any":
    # A program that takes its objects from a context does not need their module.
    if name in ("install", "uninstall"):
        from . import _install

        return getattr(_install, name)
    if name == "ShutDown":
        from ._shutdown import ShutDown

        return ShutDown
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
