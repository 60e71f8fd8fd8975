"""Names and contexts: how they are found, what they answer, what children make of them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import pickle

import pytest

import mpipc
import workers
from programs import program

pytestmark = pytest.mark.beyond_stock("about our own names")

METHODS = ("fork", "spawn", "forkserver")
DEFAULT = multiprocessing.get_start_method()


@pytest.mark.parametrize("method", METHODS)
def test_a_name_for_each_start_method(method):
    context = multiprocessing.get_context(f"mpipc-shm-{method}")
    assert isinstance(context, multiprocessing.context.BaseContext)
    assert context.get_start_method() == method
    assert type(context).__module__.startswith("mpipc")
    same = mpipc.get_context("shm", start_method=method)
    assert (type(same), same.get_start_method()) == (type(context), method)


def test_the_short_name_has_the_default_start_method():
    assert multiprocessing.get_context("mpipc-shm").get_start_method() == DEFAULT
    assert mpipc.get_context("shm").get_start_method() == DEFAULT


def test_from_other_contexts_too():
    for context in (multiprocessing.get_context("spawn"), mpipc.get_context("shm")):
        found = context.get_context("mpipc-shm-fork")
        assert type(found) is type(multiprocessing.get_context("mpipc-shm-fork"))
        assert context.get_context() is context


@pytest.mark.parametrize(
    "name", ["mpipc-no", "mpipc-shm-no", "mpipc-shm-", "mpipc", "no", "mpipc-SHM"]
)
def test_an_unknown_name(name):
    with pytest.raises(ValueError, match="cannot find context for") as caught:
        multiprocessing.get_context(name)
    if name.startswith("mpipc"):
        for ours in ("mpipc-shm", *(f"mpipc-shm-{method}" for method in METHODS)):
            assert ours in str(caught.value)


def test_an_unknown_mechanism_method_or_option():
    for args, kwargs in (
        (("no",), {}),
        (("shm",), {"start_method": "no"}),
    ):
        with pytest.raises(ValueError):
            mpipc.get_context(*args, **kwargs)
    with pytest.raises((TypeError, ValueError)):
        mpipc.get_context("shm", no_such_option=1)


def test_the_list_of_names():
    names = set(mpipc.context_names())
    assert {"mpipc-shm", *(f"mpipc-shm-{method}" for method in METHODS)} <= names
    for name in names:
        assert multiprocessing.get_context(name).get_start_method() in METHODS


def test_stock_sees_its_own_names_only():
    assert set(multiprocessing.context._concrete_contexts) == set(METHODS)
    assert set(multiprocessing.get_all_start_methods()) == set(METHODS)
    for method in METHODS:
        stock = multiprocessing.get_context(method)
        assert type(stock).__module__ == "multiprocessing.context"
        assert type(stock.Lock()).__module__ == "multiprocessing.synchronize"


@pytest.mark.parametrize("method", METHODS)
def test_contexts_pickle(method):
    context = multiprocessing.get_context(f"mpipc-shm-{method}")
    copy = pickle.loads(pickle.dumps(context))
    assert (type(copy), copy.get_start_method()) == (type(context), method)
    limited = mpipc.get_context("shm", start_method=method, max_bytes=1 << 20)
    with pytest.raises(MemoryError):
        pickle.loads(pickle.dumps(limited)).Array("b", 10 << 20)


def test_a_context_as_an_argument(ctx, family):
    assert family.call(workers.start_method_of, ctx) == ctx.get_start_method()


def test_import_is_cheap(tmp_path):
    loaded = program(
        tmp_path / "main.py",
        """
        import json, sys
        import multiprocessing
        before = set(sys.modules)
        import mpipc
        from mpipc import get_context
        print(json.dumps(sorted(set(sys.modules) - before)))
        """,
    )
    heavy = {
        "mpipc._core", "mpipc._kernel", "multiprocessing.queues", "multiprocessing.synchronize",
        "multiprocessing.connection", "multiprocessing.pool", "multiprocessing.sharedctypes",
        "multiprocessing.managers", "multiprocessing.heap", "multiprocessing.shared_memory",
        "multiprocessing.resource_sharer", "numpy", "ctypes", "cloudpickle", "posix_ipc",
        "asyncio", "concurrent.futures", "rich",
    }  # fmt: skip
    assert "mpipc" in loaded
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith(("mpipc.objects", "mpipc.testing"))]


def test_getting_a_context_loads_no_extension(tmp_path):
    loaded = program(
        tmp_path / "main.py",
        """
        import json, sys
        import multiprocessing, mpipc
        multiprocessing.get_context("mpipc-shm")
        mpipc.get_context("shm", start_method="spawn")
        print(json.dumps([name for name in sys.modules if name == "mpipc._core"]))
        """,
    )
    assert loaded == []


def test_the_kit_loads_no_extension(tmp_path):
    loaded = program(
        tmp_path / "main.py",
        """
        import json, sys
        import mpipc.testing
        print(json.dumps("mpipc._core" in sys.modules))
        """,
    )
    assert loaded is False


# The parent sets the default once; children and grandchildren of every start method are to
# have the same one, without ever naming it.
NESTED = """
import json, multiprocessing, sys
import mpipc

def report():
    context = multiprocessing.get_context()
    lock = context.Lock()
    with lock:
        pass
    return [context.get_start_method(), type(context).__module__, type(lock).__module__]

def child(queue, depth):
    queue.put(report())
    if depth:
        start(queue, depth - 1)

def start(queue, depth):
    process = multiprocessing.Process(target=child, args=(queue, depth))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = multiprocessing.get_context().Queue()
    queue.put(report())
    start(queue, 2)
    print(json.dumps([queue.get(timeout=30) for _ in range(4)]))
"""


@pytest.mark.parametrize("name", ["mpipc-shm", *(f"mpipc-shm-{method}" for method in METHODS)])
def test_set_start_method_reaches_grandchildren(tmp_path, name):
    method = name.removeprefix("mpipc-shm").removeprefix("-") or DEFAULT
    reports = program(tmp_path / "main.py", NESTED, name)
    assert len(reports) == 4
    for found, context_module, lock_module in reports:
        assert found == method
        assert context_module.startswith("mpipc") and lock_module.startswith("mpipc")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_whose_program_does_not_import_us(tmp_path, method):
    # Their main module is imported late, the default context is set early.
    late = NESTED.replace("import mpipc\n", "").replace(
        'if __name__ == "__main__":\n', 'if __name__ == "__main__":\n    import mpipc\n'
    )
    reports = program(tmp_path / "main.py", late, f"mpipc-shm-{method}")
    assert {tuple(report[:1]) for report in reports} == {(method,)}
    assert all(report[2].startswith("mpipc") for report in reports)


def test_set_start_method_back_and_forth(tmp_path):
    found = program(
        tmp_path / "main.py",
        """
        import json, multiprocessing
        import mpipc
        found = []
        for name in ("mpipc-shm-spawn", "fork", "mpipc-shm-fork", None):
            multiprocessing.set_start_method(name, force=True)
            context = multiprocessing.get_context()
            found.append([context.get_start_method(), type(context).__module__.split(".")[0]])
        print(json.dumps(found))
        """,
    )
    assert found == [
        ["spawn", "mpipc"],
        ["fork", "multiprocessing"],
        ["fork", "mpipc"],
        [DEFAULT, "multiprocessing"],
    ]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_library_starts_a_stock_process_in_such_a_child(tmp_path, method):
    answer = program(
        tmp_path / "main.py",
        """
        import json, multiprocessing, sys
        import mpipc

        def put(queue):
            queue.put(multiprocessing.current_process().name != "MainProcess")

        def through(queue):
            process = multiprocessing.get_context("spawn").Process(target=put, args=(queue,))
            process.start()
            process.join()

        if __name__ == "__main__":
            multiprocessing.set_start_method(sys.argv[1])
            context = multiprocessing.get_context()
            queue = context.SimpleQueue()
            process = context.Process(target=through, args=(queue,))
            process.start()
            print(json.dumps(queue.get()))
            process.join()
        """,
        f"mpipc-shm-{method}",
    )
    assert answer is True
