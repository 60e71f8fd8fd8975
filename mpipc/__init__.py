"""Drop-in multiprocessing backends that are fast and outlive crashes.

Importing this package registers its contexts with :mod:`multiprocessing`::

    import multiprocessing, mpipc
    ctx = multiprocessing.get_context("mpipc-shm")

Nothing else happens before a context is used: no extension is loaded, no memory is taken.
"""

from ._registry import context_names, get_context, register
from .errors import OwnerDiedWarning, SegmentCorrupt

__all__ = ["OwnerDiedWarning", "SegmentCorrupt", "__version__", "context_names", "get_context"]

__version__ = "0.1.0"

register()
