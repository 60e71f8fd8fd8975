"""Checks for programs that use several processes; needs no test framework.

`watchdog` limits how long something may take and says what hung; `no_leaks` compares what
the process holds before and after. Importing this package loads no extension.
"""

from mpipc.testing.leaks import LeakError, Snapshot, no_leaks, settle, snapshot
from mpipc.testing.processes import ProcessInfo, descendants
from mpipc.testing.watchdog import WatchdogExpired, watchdog

__all__ = [
    "LeakError",
    "ProcessInfo",
    "Snapshot",
    "WatchdogExpired",
    "descendants",
    "no_leaks",
    "settle",
    "snapshot",
    "watchdog",
]
