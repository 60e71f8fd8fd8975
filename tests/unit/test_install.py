"""The global switch: what it changes, for whom, and that it is taken back whole."""

from __future__ import annotations

import multiprocessing
import multiprocessing.dummy
import multiprocessing.resource_tracker
import os
import sys
from multiprocessing import connection, context, pool, queues, sharedctypes, spawn, synchronize

import pytest

import mpipc
from programs import program

pytestmark = pytest.mark.beyond_stock("about our own switch")

METHODS = ("fork", "spawn", "forkserver")
MODULES = (multiprocessing, connection, pool, queues, sharedctypes, spawn, synchronize)


def state():
    """Everything that an installation may change."""
    return (
        [dict(vars(module)) for module in MODULES],
        [dict(vars(cls)) for cls in (queues.Queue, queues.JoinableQueue, pool.ThreadPool)],
        dict(vars(context._default_context)),
        list(sys.meta_path),
        [multiprocessing.get_context(method) for method in METHODS],
    )


@pytest.fixture(autouse=True)
def taken_back():
    """Each test begins where no start method is set, and must leave nothing of ours behind."""
    chosen = context._default_context._actual_context
    multiprocessing.set_start_method(None, force=True)
    before = state()
    yield
    mpipc.uninstall()
    multiprocessing.set_start_method(None, force=True)
    after = state()
    context._default_context._actual_context = chosen
    assert after == before


MADE = {
    "Queue": lambda: multiprocessing.Queue(3),
    "JoinableQueue": multiprocessing.JoinableQueue,
    "SimpleQueue": multiprocessing.SimpleQueue,
    "Lock": multiprocessing.Lock,
    "RLock": multiprocessing.RLock,
    "Semaphore": lambda: multiprocessing.Semaphore(2),
    "BoundedSemaphore": lambda: multiprocessing.BoundedSemaphore(2),
    "Condition": multiprocessing.Condition,
    "Event": multiprocessing.Event,
    "Barrier": lambda: multiprocessing.Barrier(2),
    "Connection": lambda: multiprocessing.Pipe()[0],
    "Synchronized": lambda: multiprocessing.Value("i", 4),
    "SynchronizedArray": lambda: multiprocessing.Array("i", 4),
}


@pytest.mark.parametrize("name", MADE)
def test_functions_bound_before_make_our_objects(name):
    with mpipc.install("mpipc-shm"):
        made = MADE[name]()
        assert type(made).__module__.startswith("mpipc.mechanisms.shm")
        assert type(made).__name__ == name
    assert not type(MADE[name]()).__module__.startswith("mpipc")


@pytest.mark.parametrize("name", ["Event", "Lock", "Condition", "Semaphore"])
def test_types_are_equal_to_those_in_the_modules(name):
    with mpipc.install():
        assert type(MADE[name]()) is getattr(synchronize, name)
        assert isinstance(MADE[name](), getattr(synchronize, name))


@pytest.mark.parametrize("method", METHODS)
def test_contexts_of_start_methods_are_ours(method):
    before = multiprocessing.get_context(method)
    with mpipc.install():
        ctx = multiprocessing.get_context(method)
        assert ctx is mpipc.get_context("shm", start_method=method)
        assert type(before.Queue()).__module__ == "mpipc.mechanisms.shm"
    assert multiprocessing.get_context(method) is before


def test_it_sets_no_start_method():
    assert multiprocessing.get_start_method(allow_none=True) is None
    with mpipc.install():
        assert multiprocessing.get_start_method(allow_none=True) is None
        multiprocessing.set_start_method("spawn")
        assert multiprocessing.get_context() is mpipc.get_context("shm", start_method="spawn")


@pytest.mark.parametrize("method", METHODS)
def test_the_start_method_in_use_stays(method):
    multiprocessing.set_start_method(method)
    with mpipc.install():
        assert multiprocessing.get_context() is mpipc.get_context("shm", start_method=method)
    assert multiprocessing.get_context() is multiprocessing.get_context(method)
    assert not type(multiprocessing.get_context()).__module__.startswith("mpipc")


def test_a_context_of_ours_that_the_program_chose_stays():
    multiprocessing.set_start_method("mpipc-shm-spawn")
    with mpipc.install():
        assert multiprocessing.get_context() is mpipc.get_context("shm", start_method="spawn")
    assert multiprocessing.get_context() is mpipc.get_context("shm", start_method="spawn")


def test_a_name_with_a_start_method_makes_it_the_default():
    with mpipc.install("mpipc-shm-spawn"):
        assert multiprocessing.get_start_method() == "spawn"
        assert multiprocessing.get_context("fork").get_start_method() == "fork"


def test_start_methods_answer_to_our_names():
    with mpipc.install():
        methods = multiprocessing.get_all_start_methods()
        assert set(methods) == set(METHODS)
        assert "mpipc-shm" in methods and "mpipc-shm-spawn" in methods and "no" not in methods


def test_a_context_with_options(monkeypatch):
    with mpipc.install(mpipc.get_context("shm", max_bytes=1 << 16)):
        queue = multiprocessing.Queue()
        with pytest.raises(MemoryError):
            queue.put(bytes(1 << 18))
        one, _two = multiprocessing.Pipe()
        with pytest.raises(MemoryError):
            one.send(bytes(1 << 18))


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("MPIPC_CONTEXT", "mpipc-shm-spawn")
    with mpipc.install() as installation:
        assert installation.context.get_start_method() == "spawn"
    with mpipc.install("mpipc-shm-fork") as installation:
        assert installation.context.get_start_method() == "fork"


@pytest.mark.parametrize("bad", ["mpipc-no", "fork", ""])
def test_an_unknown_name(bad, monkeypatch):
    if not bad:
        monkeypatch.setenv("MPIPC_CONTEXT", "mpipc-no")
    with pytest.raises(ValueError, match="mpipc-shm-forkserver"):
        mpipc.install(bad or None)


def test_something_else_than_a_context():
    with pytest.raises(TypeError, match="42"):
        mpipc.install(42)
    with pytest.raises(TypeError, match="context"):
        mpipc.install(multiprocessing.get_context("fork"))


def test_blocks_nest():
    with mpipc.install("mpipc-shm-fork") as outer:
        with mpipc.install("mpipc-shm-spawn"):
            assert multiprocessing.get_context().get_start_method() == "spawn"
        assert context._default_context._default_context is outer.context
    assert type(multiprocessing.Lock()) is synchronize.Lock


def test_uninstall_without_install_and_twice():
    mpipc.uninstall()
    mpipc.install()
    mpipc.uninstall()
    mpipc.uninstall()


def test_objects_outlive_their_installation():
    with mpipc.install():
        queue = multiprocessing.Queue()
        subclass = type("Sub", (queues.Queue,), {})
    queue.put(1)
    assert queue.get() == 1
    late = subclass(ctx=multiprocessing.get_context("fork"))
    late.put(2)
    assert late.get() == 2


def test_subclasses_and_names_from_before_go_on_working():
    stock_queue, stock_joinable, stock_pool = (
        queues.Queue,
        queues.JoinableQueue,
        pool.ThreadPool,
    )
    early = multiprocessing.JoinableQueue()
    with mpipc.install():
        for cls in (stock_queue, stock_joinable):
            made = cls(ctx=multiprocessing.get_context())
            made.put(1)
            assert made.get(timeout=30) == 1
            made.close()
            made.join_thread()
        early.put(1)
        assert early.get(timeout=30) == 1
        early.task_done()
        early.join()
        with stock_pool(2) as threads:
            assert threads.map(abs, [-1, 2]) == [1, 2]
    early.close()
    early.join_thread()


CHILDREN = """
    import json, os, sys
    import multiprocessing
    from multiprocessing import Process, Queue   # bound before
    import mpipc

    def seen():
        return [
            multiprocessing.get_start_method(),
            type(multiprocessing.Queue()).__module__,
            type(multiprocessing.get_context("spawn")).__module__,
            type(multiprocessing.Event()) is multiprocessing.synchronize.Event,
        ]

    def child(queue, depth):
        queue.put(seen())
        if depth:
            process = Process(target=child, args=(queue, depth - 1))
            process.start()
            process.join()

    def square(n):
        return n * n

    if __name__ == "__main__":
        with mpipc.install():
            multiprocessing.set_start_method(sys.argv[1])
            queue = Queue()
            process = Process(target=child, args=(queue, 1))
            process.start()
            installed = [queue.get(), queue.get()]
            process.join()
            with multiprocessing.Pool(2) as workers:
                assert workers.map(square, range(4)) == [0, 1, 4, 9]
            from concurrent.futures import ProcessPoolExecutor
            with ProcessPoolExecutor(2) as executor:
                assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
        queue = Queue()
        process = Process(target=child, args=(queue, 1))
        process.start()
        after = [queue.get(), queue.get()]
        process.join()
        print(json.dumps([installed, after]))
"""


@pytest.mark.parametrize("method", METHODS)
def test_children_and_theirs(tmp_path, method):
    installed, after = program(tmp_path / "main.py", CHILDREN, method)
    assert installed == [[method, "mpipc.mechanisms.shm", "mpipc._context", True]] * 2
    stock = [method, "multiprocessing.queues", "multiprocessing.context", True]
    assert after == [stock] * 2


SUBCLASSES = """
    import abc, json, multiprocessing, sys
    from multiprocessing import context, pool, queues, synchronize
    import mpipc

    class Early(queues.Queue):
        def __init__(self):
            super().__init__(ctx=multiprocessing.get_context())

    class EarlyLock(synchronize.Lock):
        pass

    if len(sys.argv) > 2:
        mpipc.install()      # before the classes below, in children too

    class Late(queues.JoinableQueue, abc.ABC):
        def __init__(self, text):
            super().__init__(ctx=multiprocessing.get_context())
            self.text = text

        def __getstate__(self):
            return super().__getstate__(), self.text

        def __setstate__(self, state):
            state, self.text = state
            super().__setstate__(state)

    class LateLock(synchronize.Lock):
        pass

    class Workers(pool.Pool):
        pass

    def child(early, late, early_lock, late_lock):
        with early_lock, late_lock:
            early.put(late.text)
        late.put(late.get() + 1)
        late.task_done()

    if __name__ == "__main__":
        mpipc.install()
        multiprocessing.set_start_method(sys.argv[1])
        ctx = multiprocessing.get_context()
        early, late = Early(), Late("text")
        locks = EarlyLock(ctx=ctx), LateLock(ctx=ctx)
        late.put(1)
        process = multiprocessing.Process(target=child, args=(early, late, *locks))
        process.start()
        answers = [early.get(timeout=20)]
        process.join()
        answers += [late.get(timeout=20), isinstance(early, queues.Queue)]
        answers += [isinstance(late, queues.JoinableQueue), issubclass(Late, queues.Queue)]
        answers += [isinstance(locks[1], synchronize.Lock), issubclass(pool.ThreadPool, pool.Pool)]
        with Workers(2, context=ctx) as some:
            answers += [some.map(abs, [-1, 2]), isinstance(some, pool.Pool)]
        print(json.dumps(answers))
"""


@pytest.mark.parametrize("when", ["late", "early"])
@pytest.mark.parametrize("method", METHODS)
def test_classes_that_programs_derive(tmp_path, method, when):
    arguments = [method, "early"] if when == "early" else [method]
    answers = program(tmp_path / "main.py", SUBCLASSES, *arguments)
    assert answers == ["text", 2, True, True, True, True, True, [1, 2], True]


NESTABLE = """
    import json, multiprocessing, multiprocessing.pool
    import mpipc
    mpipc.install()

    class NoDaemonProcess(multiprocessing.get_context("fork").Process):
        @property
        def daemon(self):
            return False

        @daemon.setter
        def daemon(self, value):
            pass

    class NoDaemonContext(type(multiprocessing.get_context("fork"))):
        Process = NoDaemonProcess

    class NestablePool(multiprocessing.pool.Pool):
        def __init__(self, *args, **kwargs):
            kwargs["context"] = NoDaemonContext()
            super().__init__(*args, **kwargs)

    def inner(n):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(abs, (n,))

    if __name__ == "__main__":
        context = NoDaemonContext()
        kinds = [
            isinstance(context, multiprocessing.context.ForkContext),
            type(context.Queue()).__module__,
            context.get_start_method(),
        ]
        with NestablePool(2) as pool:
            print(json.dumps([pool.map(inner, [-1, 2]), kinds]))
"""


def test_a_context_derived_by_the_program(tmp_path):
    results, kinds = program(tmp_path / "main.py", NESTABLE)
    assert results == [1, 2]
    assert kinds == [True, "mpipc.mechanisms.shm", "fork"]


BLOCK = """
    import json, multiprocessing, sys
    import mpipc

    def square(n):
        return n * n

    if __name__ == "__main__":
        with mpipc.install():
            from concurrent.futures import ProcessPoolExecutor
        context = multiprocessing.get_context(sys.argv[1])
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            print(json.dumps(list(executor.map(square, range(4)))))
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_library_imported_in_a_block_and_used_behind_it(tmp_path, method):
    assert program(tmp_path / "main.py", BLOCK, method) == [0, 1, 4, 9]


def test_what_others_have_replaced_meanwhile_stays():
    original = spawn.get_preparation_data
    calls = []

    def mine(name):
        calls.append(name)
        return original(name)

    spawn.get_preparation_data = mine
    try:
        with mpipc.install():
            assert spawn.get_preparation_data("a name")["name"] == "a name"
            assert calls == ["a name"]
            spawn.get_preparation_data = mine
        assert spawn.get_preparation_data is mine
    finally:
        spawn.get_preparation_data = original


REFUSED = """
    import json, multiprocessing, sys
    import mpipc

    if __name__ == "__main__":
        refused = []
        with mpipc.install():
            fork = multiprocessing.get_context("fork")
            for made in (fork.Lock(), fork.Queue(), fork.Value("i"), fork.Condition()):
                process = multiprocessing.get_context("spawn").Process(args=(made,))
                try:
                    process.start()
                except RuntimeError as error:
                    refused.append(str(error).partition(" cannot")[0])
        print(json.dumps(refused))
"""


def test_what_was_made_for_fork_is_refused_to_spawned_processes_as_by_stock(tmp_path):
    refused = program(tmp_path / "main.py", REFUSED)
    assert refused == ["A SemLock created in a fork context"] * 4


LEAN = """
    import json, sys
    import multiprocessing.spawn
    before = set(sys.modules)
    from mpipc._install import restore
    restore("shm", "spawn", {})
    installed = set(sys.modules) - before
    import mpipc.mechanisms.shm
    loaded = set(sys.modules) - before
    print(json.dumps([sorted(installed), sorted(loaded)]))
"""


def test_spawned_children_pay_only_for_what_they_use(tmp_path):
    # -S: what site-packages import at start is not ours.
    folder = os.path.dirname(os.path.dirname(mpipc.__file__))
    code = f"    import sys; sys.path.insert(0, {folder!r})" + LEAN
    installed, loaded = program(tmp_path / "main.py", code, flags=["-I", "-S"])
    assert all(name.partition(".")[0] in ("mpipc", "__future__") for name in installed)
    assert "mpipc._core" not in installed
    assert "mpipc._core" in loaded
    for heavy in ("typing", "dataclasses", "inspect", "ctypes", "multiprocessing.pool"):
        assert heavy not in loaded


EARLY = """
    import json, sys
    from concurrent.futures import ProcessPoolExecutor   # derives its queue from stock's
    import multiprocessing
    import mpipc

    def square(n):
        return n * n

    if __name__ == "__main__":
        mpipc.install()
        multiprocessing.set_start_method(sys.argv[1])
        with ProcessPoolExecutor(2) as executor:
            print(json.dumps(list(executor.map(square, range(4)))))
"""


@pytest.mark.parametrize("method", METHODS)
def test_libraries_imported_before(tmp_path, method):
    assert program(tmp_path / "main.py", EARLY, method) == [0, 1, 4, 9]


VENDORED = """
    import json, os, sys
    sys.path.insert(0, os.environ["WHERE"])
    import multiprocessing
    import mpipc

    def child(queue):
        queue.put(type(multiprocessing.Lock()).__module__)

    if __name__ == "__main__":
        mpipc.install()
        multiprocessing.set_start_method(sys.argv[1])
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=child, args=(queue,))
        process.start()
        print(json.dumps(queue.get(timeout=20)))
        process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_package_that_only_the_program_knows_where_to_find(tmp_path, method, monkeypatch):
    monkeypatch.setenv("WHERE", os.path.dirname(os.path.dirname(mpipc.__file__)))
    assert (
        program(tmp_path / "main.py", VENDORED, method, flags=["-I", "-S"])
        == "mpipc.mechanisms.shm"
    )
