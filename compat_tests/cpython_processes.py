"""CPython's own tests of multiprocessing's objects between processes, on a context of mpipc.

    python compat_tests/cpython_processes.py fork|spawn|forkserver [unittest's arguments]

Runs the interpreter's installed ``test._test_multiprocessing``, of it the classes that its authors
call ``WithProcesses...``, with the functions of the package that make objects replaced by those of
``mpipc-shm``. Spawned children import this file again, and so get the same replacements.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import unittest

import mpipc

try:
    import test._test_multiprocessing as suite
except ModuleNotFoundError as error:
    sys.exit(
        f"this Python has no {error.name}: install its test suite "
        "(Debian, Ubuntu: libpython3-testsuite; Fedora: python3-test)"
    )

METHOD = "MPIPC_COMPAT_START_METHOD"
HANG = 900.0  # seconds after which all stacks are shown and the run ends

NAMES = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Process",
    "Queue",
    "RawArray",
    "RawValue",
    "RLock",
    "Semaphore",
    "SimpleQueue",
    "Value",
]

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("fork", "spawn", "forkserver"):
        sys.exit(__doc__)
    os.environ[METHOD] = sys.argv.pop(1)

method = os.environ[METHOD]
context = mpipc.get_context("shm", start_method=method)
for name in NAMES:
    made = getattr(context, name)
    setattr(multiprocessing, name, made)
    if hasattr(suite.ProcessesMixin, name):
        setattr(suite.ProcessesMixin, name, made if name == "Process" else staticmethod(made))

suite.install_tests_in_module_dict(globals(), method)
for name, value in list(globals().items()):
    is_test = isinstance(value, type) and issubclass(value, unittest.TestCase)
    if is_test and not name.startswith("WithProcesses"):
        del globals()[name]

if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG, exit=True)
    unittest.main()
