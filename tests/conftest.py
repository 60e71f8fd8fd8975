"""What every test gets: a context, a watchdog, a leak check."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import pytest

from mpipc import MechanismSpec, context_names
from mpipc._registry import ASSEMBLED, PREFIX, find_mechanism
from mpipc.testing import settle, snapshot, watchdog

# Children find the shared targets by their module's name, whatever import mode pytest uses.
sys.path.insert(0, str(Path(__file__).parent))

import workers

METHODS = ("fork", "spawn", "forkserver")
# These tests depend on how processes start. The others run so when asked for, by -m thorough or
# --start-method; that objects reach spawned children, the kit checks always.
DEPENDS_ON_START = {"spawn": {"process", "lifetime", "pool"}, "forkserver": {"process"}}
_STDERR = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--context",
        default="mpipc-shm",
        help="the context under test without its start method; 'stock' is multiprocessing's own",
    )
    parser.addoption(
        "--start-method", action="append", choices=METHODS, help="only this one; may be repeated"
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "watchdog(seconds): how long the test may take, instead of 60 s",
        "leaks_allowed(reason): do not look for what the test leaves behind",
        "beyond_stock(reason): stock multiprocessing does not do this; skipped there",
        "without_feeder(reason): skipped where queues have stock's feeder thread",
        "of_stream_sockets(reason): skipped where a duplex end is no Unix stream socket",
        "without_names(reason): skipped where objects have names in the system",
    ):
        config.addinivalue_line("markers", line)
    # 3.12 warns of every fork beside a thread; the watchdog is one, and so are many tests.
    config.addinivalue_line("filterwarnings", "ignore:.*use of fork:DeprecationWarning")
    # Capturing takes descriptor 2 during the tests; a hang is to be seen outside.
    config.stash[_STDERR] = os.dup(2)
    # SIGABRT then makes children of every start method show their stacks.
    os.environ["PYTHONFAULTHANDLER"] = "1"
    # Leases of other programs, or of other workers of pytest-xdist, would look like leaks.
    private = tempfile.TemporaryDirectory(prefix="mpipc-tests-")
    os.environ["TMPDIR"] = private.name
    config.add_cleanup(private.cleanup)
    os.environ["MPIPC_TEST_CONTEXT"] = config.getoption("context")
    # Otherwise each spawned child would import pytest's own script, and pytest with it.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    multiprocessing.set_forkserver_preload(["workers", "mpipc.testing.conformance"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "context_name" in metafunc.fixturenames:
        family = metafunc.config.getoption("context")
        asked_for = metafunc.config.getoption("start_method")
        about = metafunc.module.__name__.removeprefix("test_")
        metafunc.parametrize(
            "context_name",
            [
                pytest.param(
                    f"{family}-{method}",
                    marks=()
                    if asked_for or method == "fork" or about in DEPENDS_ON_START[method]
                    else pytest.mark.thorough,
                )
                for method in asked_for or METHODS
            ],
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    family = config.getoption("context")
    stock = family == "stock"
    # What the context under test is not, by its nature: the mark, and whether it is to be skipped.
    lacks = {
        "beyond_stock": stock,
        "without_feeder": stock or _spec_of(family).objects == ASSEMBLED,
        "of_stream_sockets": family not in ("stock", "mpipc-shm", "mpipc-unix"),
        "without_names": not stock and bool(_spec_of(family).persistent),
    }
    for item in items:
        for name in filter(lacks.get, lacks):
            for mark in item.iter_markers(name):
                item.add_marker(pytest.mark.skip(reason=f"not on {family}: {mark.args[0]}"))


def pytest_collection_finish() -> None:
    # The leak check of each test collects garbage: what is there by now need not be looked at.
    gc.collect()
    gc.freeze()


def _spec_of(family: str) -> MechanismSpec:
    spec = find_mechanism(family.removeprefix(PREFIX))
    if spec is None:
        raise pytest.UsageError(f"no context {family!r}; there are {', '.join(context_names())}")
    return spec


@pytest.fixture(autouse=True)
def _watched(request: pytest.FixtureRequest):
    mark = request.node.get_closest_marker("watchdog")
    with watchdog(mark.args[0] if mark else 60.0, stderr=request.config.stash[_STDERR]):
        yield


@pytest.fixture(autouse=True)
def _leak_free(request: pytest.FixtureRequest, _watched: None):
    before = snapshot()
    yield
    if mark := request.node.get_closest_marker("leaks_allowed"):
        assert mark.args[0], "leaks_allowed needs a reason"
        return
    # A failed test keeps its objects alive in its traceback: only its own error counts.
    if request.node.stash.get(_FAILED, False):
        return
    # All other fixtures have ended by now, but pytest keeps their values a little longer.
    request.node.funcargs.clear()
    if left := settle(before):
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def forkserver():
    """Start the one fork server of the session, so that no test seems to leave it behind."""
    from multiprocessing import forkserver

    forkserver.ensure_running()


@pytest.fixture
def ctx(context_name: str, request: pytest.FixtureRequest):
    """The context under test, once for each start method."""
    family, _, method = context_name.rpartition("-")
    if method == "forkserver":
        request.getfixturevalue("forkserver")
    if family == "stock":
        return multiprocessing.get_context(method)
    import mpipc  # noqa: F401  (registers the names)

    return multiprocessing.get_context(context_name)


@pytest.fixture
def family(ctx):
    """Start processes of `ctx`; after the test all must have ended as expected."""
    with workers.Family(ctx) as family:
        yield family
