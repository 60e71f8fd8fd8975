"""What our classes are while they stand in the places of stock's.

See :func:`mpipc.install`. At other times they are classes like any other.
"""

from __future__ import annotations

from abc import ABCMeta
from types import new_class

from . import _stock
from ._registry import contexts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Replacement"]


class Replacement(ABCMeta):
    """The metaclass of classes that :func:`mpipc.install` puts into stock's modules.

    There, programs and libraries derive classes of their own, override stock's private methods, and
    send instances to processes that may know nothing of us. What they derive is therefore derived
    from stock's class, with locks and pipes of ours below it; and what is an instance of stock's
    class is one of ours. (That it is an ABCMeta is to let them mix abstract classes in.)
    """

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> Any:
        named = tuple(replaced_by(base) or base for base in bases)
        if named == bases or namespace.get("__module__", "").startswith("mpipc."):
            return super().__new__(mcls, name, bases, namespace, **kwargs)
        return new_class(name, named, kwargs, lambda body: body.update(namespace))

    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(cls, instance) or isinstance(instance, replaced_by(cls) or ())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(cls, subclass) or issubclass(subclass, replaced_by(cls) or ())


def replaced_by(cls: type) -> type[Any] | None:
    """The class of stock's in whose place `cls` stands now, if it does."""
    name = cls.__name__
    installed = contexts().installed
    if installed is None or name not in _stock.__all__:
        return None
    if vars(installed._objects).get(name) is not cls:
        return None
    original: type[Any] = getattr(_stock, name)
    return original
