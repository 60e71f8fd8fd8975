"""Compare results of plain data."""

from __future__ import annotations

from typing import Any


def first_difference(expected: Any, actual: Any, where: str = "result") -> str | None:
    """Find the first item in which two results differ.

    Parameters
    ----------
    expected, actual : object
        Dicts, lists, tuples and whatever compares by ``==``, nested as deep as they like.
    where : str
        How to call the whole.

    Returns
    -------
    str or None
        Which item it is and both its values; None where all are equal and of the same type.
    """
    if type(expected) is not type(actual):
        return f"{where} is {_brief(actual)}, expected {_brief(expected)}"
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key not in actual:
                return f"{where}[{key!r}] is missing, expected {_brief(value)}"
            if difference := first_difference(value, actual[key], f"{where}[{key!r}]"):
                return difference
        if extra := actual.keys() - expected.keys():
            key = next(key for key in actual if key in extra)
            return f"{where}[{key!r}] is {_brief(actual[key])}, expected no such item"
        return None
    if isinstance(expected, list | tuple):
        for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
            if difference := first_difference(one, other, f"{where}[{index}]"):
                return difference
        if len(expected) != len(actual):
            return f"{where} has {len(actual)} items, expected {len(expected)}"
        return None
    if expected != actual:
        return f"{where} is {_brief(actual)}, expected {_brief(expected)}"
    return None


def _brief(value: Any) -> str:
    """The value in at most a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
