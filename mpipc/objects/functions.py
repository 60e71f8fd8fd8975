"""Functions that are sent with every task: pickled once, and unpickled once by each worker.

Most functions are pickled as a name, and looking that up, here and there, takes longer than all
else that is done to send a small task.
"""

from __future__ import annotations

import pickle
import weakref
from types import BuiltinFunctionType, FunctionType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Known", "Names"]

# So many functions are kept by a worker.
MOST = 100


class Names:
    """Pickles functions that are sent as a name; knows the last one."""

    def __init__(self) -> None:
        self._last: tuple[Any, Any, bytes] | None = None

    def pickled(self, function: Any, within: Callable[[Any], Any] | None = None) -> bytes | None:
        """`function`, or what `within` makes of it, pickled; None unless it is sent as a name.

        What has a state must be sent with each task, as it is then.
        """
        last = self._last
        if last is not None and last[0]() is function and last[1] is within:
            return last[2]
        kind = type(function)
        if kind is BuiltinFunctionType:
            if type(function.__self__) is not ModuleType:
                return None
        elif kind is not FunctionType and kind is not type:
            return None
        try:
            name = pickle.dumps(function if within is None else within(function), 5)
        except Exception:
            return None  # it is raised again for each task
        self._last = weakref.ref(function), within, name
        return name


class Known(dict[bytes, "Any"]):
    """The functions of a worker, by what they are sent as."""

    def __missing__(self, name: bytes) -> Any:
        if len(self) == MOST:
            self.clear()
        function = self[name] = pickle.loads(name)
        return function
