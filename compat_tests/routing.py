"""The proof that a test used objects of ours: every kind that is made is recorded.

The constructors of the mechanism's module are wrapped in place, so that classes stay the same ones
however a test came by them. Forked children record, too; spawned ones do not.
"""

from __future__ import annotations

import functools
import inspect
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

_file: Path | None = None
_known: set[str] = set()


def watch(context_name: str) -> list[str]:
    """Watch what the context makes, and return the names of it; to be called before install()."""
    context: Any = multiprocessing.get_context(context_name)
    module = context._objects
    names = [name for name in module.__all__ if hasattr(context, name)]
    classes: dict[Any, str] = {}
    for name in names:
        maker = getattr(module, name)
        if inspect.isclass(maker):
            classes[maker] = name
        else:
            setattr(module, name, _recording(maker, functools.partial(_just, name)))

    def class_name(instance: object, *_: Any, **__: Any) -> str:
        # An object counts as what it is itself: a JoinableQueue is no Queue.
        return next(classes[cls] for cls in type(instance).__mro__ if cls in classes)

    for cls in classes:
        cls.__init__ = _recording(cls.__init__, class_name)
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(f"{context_name}-{method}")
        start = _recording(context.Process._Popen, functools.partial(_just, "Process"))
        context.Process._Popen = staticmethod(start)
    return ["Process", *names]


def record_in(file: Path) -> None:
    """Let this process and the children it forks write the names there, each on a line."""
    global _file
    _file = file


def _recording(function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def recording(*args: Any, **kwargs: Any) -> Any:
        name = name_of(*args, **kwargs)
        if _file and name not in _known:
            _known.add(name)
            # Opened each time, since tests look at the descriptors of processes.
            with _file.open("a") as lines:
                lines.write(f"{name}\n")
        return function(*args, **kwargs)

    return recording


def _just(name: str, *_: Any, **__: Any) -> str:
    return name
