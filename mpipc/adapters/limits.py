"""What the kernel allows, by its own names."""

from __future__ import annotations

import os
import resource

__all__ = ["of_kernel", "of_process", "setting"]


def setting(name: str) -> tuple[int, ...]:
    """The numbers of a setting of the kernel such as ``fs.pipe-max-size``; none without it."""
    path = os.path.join("/proc/sys", *name.split("."))
    if not os.path.exists(path):
        return ()
    with open(path) as file:
        return tuple(map(int, file.read().split()))


def of_kernel(*names: str) -> dict[str, int | tuple[int, ...]]:
    """Settings of the kernel by their names, without those that it has not."""
    found = {name: setting(name) for name in names}
    return {name: value if value[1:] else value[0] for name, value in found.items() if value}


def of_process(*names: str) -> dict[str, int]:
    """Resource limits such as ``RLIMIT_NOFILE``, the soft ones; -1 for none."""
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}
