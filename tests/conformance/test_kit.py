"""The public kit, on every mechanism that works here.

The rest of this folder goes deeper, on the one mechanism that ``--context`` names.
"""

from __future__ import annotations

import multiprocessing
from functools import cache

import pytest

from mpipc._registry import PREFIX, START_METHODS, mechanisms
from mpipc.cli.mechanisms import report
from mpipc.testing.conformance import checks

# Some in which objects go to another process, which is where start methods differ: they run under
# spawn too. All the rest, and forkserver, when asked for by -m thorough.
CROSSING = {
    "check_connection_travels",
    "check_joinable_queue",
    "check_semaphore_counts",
    "check_simple_queue_keeps_order",
    "check_values_and_arrays",
}


@cache
def why_not(mechanism: str) -> str:
    """Why a mechanism does not work here; empty if it does."""
    return report(mechanisms()[mechanism]).why_not


def cases():
    for method in START_METHODS:
        for mechanism in mechanisms():
            for check in checks():
                usual = method == "fork" or (method == "spawn" and check in CROSSING)
                marks = () if usual else pytest.mark.thorough
                yield pytest.param(mechanism, method, check, marks=marks)


@pytest.mark.beyond_stock("it is no mechanism of ours")
@pytest.mark.parametrize(("mechanism", "method", "check"), list(cases()))
def test_conforms(mechanism, method, check, request):
    if reason := why_not(mechanism):
        pytest.skip(f"does not work here: {reason}")
    if method == "forkserver":
        request.getfixturevalue("forkserver")
    checks()[check](multiprocessing.get_context(f"{PREFIX}{mechanism}-{method}"))
