"""Process classes: stock's, whose children have our context as their default."""

from __future__ import annotations

import multiprocessing.context as stock
from multiprocessing.process import BaseProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._context import MechanismContext

__all__ = ["process_class"]

BASES: dict[str, type[BaseProcess]] = {
    "fork": stock.ForkProcess,
    "spawn": stock.SpawnProcess,
    "forkserver": stock.ForkServerProcess,
}


def process_class(context: MechanismContext) -> type[BaseProcess]:
    """The Process class of a context, under the name that stock's has."""
    base = BASES[context.method]

    def __reduce_ex__(self: BaseProcess, protocol: Any) -> Any:
        if type(self) is made:  # no module has it by name; a user's subclass is found by its own
            return _new_process, (context,), self.__dict__
        return base.__reduce_ex__(self, protocol)

    made: type[BaseProcess] = type(
        base.__name__,
        (base,),
        {
            "__module__": __name__,
            "__doc__": base.__doc__,
            "__reduce_ex__": __reduce_ex__,
            "_start_method": context._name,
        },
    )
    return made


def _new_process(context: MechanismContext) -> BaseProcess:
    cls: type[BaseProcess] = context.Process
    return cls.__new__(cls)
