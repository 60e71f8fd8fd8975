"""What the kernel allows, by its own names."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["of_kernel", "of_process"]


def of_kernel(*names: str) -> dict[str, int]:
    """Settings under ``/proc/sys`` such as ``fs/pipe-max-size``; without those that are not there.

    Of a setting with several numbers, the first.
    """
    files = {name: Path("/proc/sys", name) for name in names}
    return {name: int(file.read_text().split()[0]) for name, file in files.items() if file.exists()}


def of_process(*names: str) -> dict[str, int]:
    """Resource limits such as ``RLIMIT_NOFILE``, the soft ones; -1 for none."""
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}
