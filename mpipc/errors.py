"""Exceptions and warnings that stock has no name for."""

__all__ = ["OwnerDiedWarning", "SegmentCorrupt"]


class SegmentCorrupt(OSError):
    """What lies in shared memory cannot be right: some process wrote where it should not."""


class OwnerDiedWarning(RuntimeWarning):
    """The process that held a lock died; the lock has passed to the process that asked next."""
